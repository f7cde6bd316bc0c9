"""A budget in nats becomes strength: the strengths found do what the budget says, stay, and change nothing else."""

import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import stochroute as sr
from calibration_runs import BUDGET, PROMPTS, both, model
from families import EXPERT_FAMILIES
from matrix import kinds_of, random_ids
from stochroute.calibration import OutOfReach, Report, Sample, measure
from stochroute.generation.receipts import routing_hash

PATHS = sr.derive_paths(7, 2)


def calibrated(routed: sr.RoutedModel, budget: float = BUDGET, **options) -> Report:
    return routed.calibrate(PROMPTS, **{"budget": budget, "pairs": 24, **options})


def logits_of(routed: sr.RoutedModel) -> torch.Tensor:
    with torch.no_grad(), routed.follow(PATHS, start=0):
        return routed.model(torch.tensor([PROMPTS[0], PROMPTS[4]])).logits


@pytest.mark.parametrize("kind", ["shared-sequence", "independent-1", "latent-3", "attention-1", "mixed"])
@pytest.mark.parametrize("quantity", ["divergence", "transmission"])
def test_the_strengths_found_do_what_the_budget_says(kind: str, quantity: str):
    routed = sr.route(model(), kinds_of("llama")[kind])
    report = calibrated(routed, quantity=quantity)
    again = measure(routed, Sample.along_paths(PROMPTS, "all", 24, seed=0))
    assert again.nats(quantity) == report.nats == pytest.approx(BUDGET, rel=3e-3)
    assert report.low <= report.nats <= report.high


@pytest.mark.parametrize("family", EXPERT_FAMILIES)
def test_expert_noise_is_calibrated_too(family: str):
    routed = sr.route(model(family), kinds_of(family)["experts-1"])
    prompts = random_ids(32, 9).tolist()
    # a small step of the strength changes the choice of experts at once, so the budget is met less exactly
    assert routed.calibrate(prompts, budget=0.2, pairs=128).nats == pytest.approx(0.2, rel=0.03)


def test_more_budget_takes_more_strength():
    found = [
        calibrated(sr.route(model(), sr.RoutingConfig()), budget).config.structural.strength
        for budget in (0.001, 0.01, 0.1, 0.5)
    ]
    assert found == sorted(found)
    assert found[1] / found[0] == pytest.approx(math.sqrt(10), rel=0.1)  # nats grow with the square of a small strength


def test_strengths_keep_their_proportions_and_a_zero_stays_zero():
    routed = sr.route(model(), both())
    config = calibrated(routed).config
    assert routed.config is config
    first, second, third = config.structural.strength
    assert second == 0
    assert third / first == pytest.approx(3, rel=1e-3)
    assert config.attention.strength / first == pytest.approx(5, rel=1e-3)
    assert routed.structural.strength.tolist() == pytest.approx([first, 0, third])
    assert routed.attention.strength.tolist() == pytest.approx([config.attention.strength] * 3)


def test_strengths_can_be_copied_by_hand():
    routed = sr.route(model(), sr.RoutingConfig())
    (strength,) = calibrated(routed).strengths().values()
    assert len(strength.lstrip("0.").replace(".", "")) <= 4
    typed = sr.route(model(), sr.RoutingConfig(structural=sr.Structural(strength=float(strength))))
    assert routing_hash(typed) == routing_hash(routed)
    assert torch.equal(logits_of(typed), logits_of(routed))


def test_split_by_sensitivity_makes_every_site_contribute_the_same():
    def spread(split: str) -> float:
        report = calibrated(sr.route(model(), both()), split=split, pairs=60)
        assert report.nats == pytest.approx(BUDGET, rel=3e-3)
        assert [(c.kind, c.layer) for c in report.contributions] == [
            ("structural", 0),
            ("structural", 2),
            *[("attention", layer) for layer in range(3)],
        ]
        alone = [c.nats for c in report.contributions]
        return max(alone) / min(alone)

    assert spread("even") > 1.5
    assert spread("sensitivity") < 1.05


def test_the_same_call_finds_the_same_whatever_happened_before():
    first = sr.route(model(), both())
    report = calibrated(first)
    torch.manual_seed(99)
    second = sr.route(model(), both())
    assert calibrated(second) == report
    assert routing_hash(first) == routing_hash(second)
    assert calibrated(sr.route(model(), both()), seed=1) != report


def test_nothing_random_outside_is_touched():
    before = torch.get_rng_state()
    calibrated(sr.route(model(), both()))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_calibrated_routing_is_saved_and_its_paths_replay(tmp_path: Path):
    network = model()
    routed = sr.route(network, both())
    calibrated(routed)
    ids = torch.tensor([PROMPTS[0]])
    out = routed.generate(ids, paths=3, seed=7, max_new_tokens=6)
    routed.save_pretrained(tmp_path)
    routed.detach()
    loaded = sr.RoutedModel.from_pretrained(network, tmp_path)
    assert loaded.config == routed.config
    again = loaded.generate(ids, paths=out.receipts, max_new_tokens=6)  # a receipt that differed would warn
    assert torch.equal(again.sequences, out.sequences)
    assert again.receipts[0].routing == routing_hash(routed)


def test_walking_paths_never_calibrates(monkeypatch: pytest.MonkeyPatch):
    routed = sr.route(model(), both())
    calibrated(routed)
    config = routed.config
    monkeypatch.setattr("stochroute.calibration.divergence.measure", lambda *_: pytest.fail("measured"))
    routed.generate(torch.tensor([PROMPTS[0]]), paths=2, max_new_tokens=3)
    assert routed.config is config


@pytest.mark.parametrize(
    "config",
    [
        sr.RoutingConfig(structural=sr.Structural(strength="auto")),
        sr.RoutingConfig(structural=None, attention=sr.Attention(strength="auto")),
        sr.RoutingConfig(attention=sr.Attention(strength="auto")),
    ],
)
def test_auto_walks_no_path_before_it_is_calibrated(config: sr.RoutingConfig, tmp_path: Path):
    network = model()
    routed = sr.route(network, config)
    ids = torch.tensor([PROMPTS[0]])
    for walk in (lambda: logits_of(routed), lambda: routed.generate(ids, paths=2, max_new_tokens=2)):
        with pytest.raises(ValueError, match=r"strength='auto' is not known yet.*calibrate"):
            walk()
    routed.save_pretrained(tmp_path)
    routed.detach()
    routed = sr.RoutedModel.from_pretrained(network, tmp_path)
    assert routed.config == config
    assert calibrated(routed).nats == pytest.approx(BUDGET, rel=3e-3)
    assert "auto" not in str(routed.config)
    assert len(routed.generate(ids, paths=2, max_new_tokens=2).paths) == 2


def test_auto_stands_for_the_default_in_proportion():
    def found(strength: float | str) -> sr.RoutingConfig:
        part = sr.Structural(strength=strength)
        return calibrated(sr.route(model(), sr.RoutingConfig(structural=part, attention=sr.Attention()))).config

    assert found("auto") == found(sr.Structural().strength)


def test_the_model_stays_in_its_mode_and_dropout_is_not_measured():
    # GPT-2 with dropout: in training mode two forwards of the same row would differ
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"vocab_size": 97, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "bos_token_id": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(
            AutoConfig.for_model("gpt2", initializer_range=0.3, eos_token_id=1, **shape)
        )
    network.train()
    routed = sr.route(network)
    report = calibrated(routed)
    assert network.training
    assert routed.calibrate(PROMPTS, budget=BUDGET, pairs=24).nats == pytest.approx(report.nats, rel=3e-3)


def test_what_was_learned_is_scaled_and_kept():
    routed = sr.route(model(), both())
    with torch.no_grad():
        for parameter in routed.noise_parameters().values():
            parameter.mul_(2)
    plain = calibrated(sr.route(model(), both())).config.structural.strength[0]
    assert calibrated(routed).config.structural.strength[0] == pytest.approx(plain / 2, rel=2e-3)
    assert routed.structural.sigma.unique().tolist() == [2]


@pytest.mark.parametrize("span", ["generated", "all"])
def test_an_open_number_of_pairs_gives_a_narrow_interval(span: str):
    routed = sr.route(model(), both(span=span))
    report = routed.calibrate(random_ids(256, 12, seed=1).tolist(), budget=BUDGET)
    assert (report.high - report.low) / 2 / BUDGET < 0.08
    held_out = random_ids(256, 12, seed=2).tolist()
    measured = measure(routed, Sample.along_paths(held_out, span, 512, seed=1))
    assert measured.nats("divergence") == pytest.approx(BUDGET, rel=0.1)


def test_a_report_is_a_text_a_plot_and_json(tmp_path: Path):
    report = calibrated(sr.route(model(), both()))
    text = str(report)
    assert f"{report.nats:.4g} nats" in text
    assert f"{report.forward_passes} forward passes" in text
    assert text.count("structural ") == 3  # the strengths, and a row for each of the two sites that are on
    assert "█" in text
    report.save_plot(tmp_path / "plot.svg")
    drawn = ElementTree.parse(tmp_path / "plot.svg").getroot()
    words = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"structural 0", "structural 2", "attention 0", "attention 1", "attention 2"} <= set(words)
    assert [path.name for path in tmp_path.iterdir()] == ["plot.svg"]
    data = json.loads(json.dumps(report.to_dict()))
    assert sr.RoutingConfig.from_dict(data["config"]) == report.config
    assert data["nats"] == report.nats


def test_a_plot_that_cannot_be_written_leaves_nothing(tmp_path: Path):
    report = calibrated(sr.route(model(), both()))
    with pytest.raises(OSError, match="missing"):
        report.save_plot(tmp_path / "missing" / "plot.svg")
    assert not list(tmp_path.iterdir())


# --- bad input


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"budget": 0}, "budget=0 "),
        ({"budget": -0.1}, r"budget=-0\.1"),
        ({"budget": math.nan}, "budget=nan"),
        ({"budget": math.inf}, "budget=inf"),
        ({"budget": True}, "budget=True"),
        ({"budget": "0.1"}, r"budget='0\.1'"),
        ({"budget": None}, "budget=None"),
        ({"quantity": "entropy"}, "quantity='entropy'"),
        ({"split": "half"}, "split='half'"),
        ({"pairs": 0}, "pairs=0"),
        ({"pairs": 1.5}, r"pairs=1\.5"),
        ({"seed": -1}, "seed=-1"),
        ({"prompts": []}, "prompts holds 0"),
        ({"prompts": [[3, 4, 5]]}, "prompts holds 1"),
        ({"prompts": "Once"}, "prompts holds one text"),
        ({"prompts": [[3, 4], [3]]}, "prompt 1 has 1 token:"),
        ({"prompts": [[3, 4], []]}, "prompt 1 has 0 tokens"),
        ({"prompts": [[3, 4], [3] * 129]}, "prompt 1 has 129 tokens, but the model holds 128"),
        ({"prompts": [[3, 4], "Once"]}, "prompt 1 is a text, but tokenizer=None"),
        ({"prompts": [[3, 4], [3.5, 4]]}, "prompt 1 is no text and no flat list"),
        ({"prompts": [[3, 4], [[3, 4]]]}, "prompt 1 is no text and no flat list"),
        ({"prompts": [[3, 4], [3, 97]]}, "prompt 1 holds token 97, but the model knows 97"),
        ({"prompts": [[3, 4], [3, -1]]}, "prompt 1 is no text and no flat list"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(options: dict, named: str):
    routed = sr.route(model(), both())
    before = logits_of(routed)
    with pytest.raises(ValueError, match=named):
        routed.calibrate(**{"prompts": PROMPTS, "budget": BUDGET, **options})
    assert routed.config == both()
    assert torch.equal(logits_of(routed), before)


@given(budget=st.one_of(st.floats(max_value=0), st.just(math.inf), st.just(math.nan), st.text(), st.booleans()))
def test_no_bad_budget_gets_past(budget: object):
    with pytest.raises(ValueError, match=r"^budget="):
        _ROUTED.calibrate(PROMPTS, budget=budget)  # pyright: ignore[reportArgumentType]


_ROUTED = sr.route(model(), sr.RoutingConfig())


@given(
    st.lists(
        st.one_of(
            st.text(max_size=3), st.lists(st.integers(-2, 120), max_size=3), st.none(), st.floats(), st.lists(st.none())
        ),
        max_size=4,
    )
)
@settings(max_examples=50)
def test_prompts_are_calibrated_on_or_refused_by_name(prompts: list):
    good = [isinstance(p, list) and len(p) >= 2 and all(type(t) is int and 0 <= t < 97 for t in p) for p in prompts]
    if all(good) and len(good) >= 2:
        assert _ROUTED.calibrate(prompts, budget=BUDGET, pairs=2).nats == pytest.approx(BUDGET, rel=3e-3)
    else:
        with pytest.raises(ValueError, match=r"^prompts? "):
            _ROUTED.calibrate(prompts, budget=BUDGET, pairs=2)


@pytest.mark.parametrize("budget", [1e3, 1e-40])
def test_a_budget_out_of_reach_says_what_is_reached_and_changes_nothing(budget: float):
    routed = sr.route(model(), both())
    before = logits_of(routed)
    with pytest.raises(
        OutOfReach, match=r"out of reach: the (largest reached|smallest that rounding leaves) is [\d.e-]+"
    ):
        calibrated(routed, budget)
    assert routed.config == both()
    assert torch.equal(logits_of(routed), before)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (sr.RoutingConfig(structural=None), "no kind of noise is on"),
        (sr.RoutingConfig(structural=sr.Structural(strength=0)), "every strength is 0"),
        (sr.RoutingConfig(structural=sr.Structural(strength=0), attention=sr.Attention(strength=0)), "every strength"),
    ],
)
def test_a_routing_with_nothing_on_is_refused(config: sr.RoutingConfig, named: str):
    with pytest.raises(ValueError, match=named):
        calibrated(sr.route(model(), config))


def test_logits_that_are_not_finite_are_refused():
    network = model()
    with torch.no_grad():
        network.lm_head.weight[5] = math.nan
    routed = sr.route(network, both())
    with pytest.raises(ValueError, match="own logits hold NaN"):
        calibrated(routed)
    assert routed.config == both()


def test_noise_that_makes_logits_nan_is_said_to():
    routed = sr.route(model(), both())
    with torch.no_grad():
        routed.structural.mu.fill_(math.nan)
    with pytest.raises(OutOfReach, match="makes NaN of the logits"):
        calibrated(routed)


def test_a_site_that_is_not_heard_gets_no_share():
    network = model()
    with torch.no_grad():
        network.model.layers[1].self_attn.v_proj.weight.zero_()  # whatever is attended to, nothing comes of it
    routed = sr.route(network, sr.RoutingConfig(attention=sr.Attention()))
    with pytest.raises(ValueError, match="attention noise in layer 1 alone makes"):
        calibrated(routed, split="sensitivity")
    assert calibrated(routed, split="even").nats == pytest.approx(BUDGET, rel=3e-3)


def test_a_calibration_that_is_interrupted_changes_nothing():
    routed = sr.route(model(), both())

    def interrupt(number: int, nats: float) -> None:
        if number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrated(routed, on_evaluation=interrupt)
    assert routed.config == both()
    assert routed.structural.strength.tolist() == pytest.approx([0.1, 0, 0.3])

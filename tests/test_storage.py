"""A routing on disk: the same bits after save and load, never half-written, and refused with a reason when it does
not fit."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import stochroute as sr
from families import FAMILIES
from stochroute.config import Schedule, UnknownConfigKeys
from stochroute.storage import CONFIG_FILE, PARAMETER_FILE

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

IDS = torch.tensor([[3, 14, 15, 92, 65, 35], [8, 9, 79, 32, 38, 46]])
PATHS = [7, 2**64 - 1]
FILES = {CONFIG_FILE, PARAMETER_FILE}

STRUCTURAL = {
    "independent": sr.Structural(form="independent", layers="all", strength=[0.1, 0.2, 0.3], hold=4),
    "latent": sr.Structural(form="latent", rank=5, layers=[0, 2], schedule=Schedule("linear", 9)),
    "everywhere": sr.Structural(layers="all"),
}
CONFIGS = {
    "default": sr.RoutingConfig(),
    "independent": sr.RoutingConfig(structural=STRUCTURAL["independent"]),
    "latent": sr.RoutingConfig(structural=STRUCTURAL["latent"]),
    "attention": sr.RoutingConfig(structural=None, attention=sr.Attention(strength=0.7), span="all"),
    "both": sr.RoutingConfig(
        structural=STRUCTURAL["everywhere"], attention=sr.Attention(layers=[1], distribution="uniform")
    ),
    "nothing": sr.RoutingConfig(structural=None),
}
every_config = pytest.mark.parametrize("name", CONFIGS)


def llama(**settings: int) -> nn.Module:
    """A tiny random Llama in float32; `settings` overrides its config."""
    if not settings:
        return FAMILIES["llama"].build(torch.float32)
    config = FAMILIES["llama"].config()
    for name, value in settings.items():
        setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def learn(routed: sr.RoutedModel, seed: int = 5) -> None:
    """Moves every noise parameter, as training would."""
    stream = torch.Generator().manual_seed(seed)
    for parameter in routed.noise_parameters().values():
        parameter.copy_(torch.randn(parameter.shape, generator=stream))


@torch.no_grad()
def walk(routed: sr.RoutedModel) -> Tensor:
    with routed.follow(PATHS, start=0):
        return routed.model(input_ids=IDS).logits


def traces_of(model: nn.Module) -> dict:
    """All that a routing could leave behind: the attributes and hooks of every module, and the attention's name."""
    return {
        name: (
            sorted(vars(module)),
            {key: list(value) for key, value in vars(module).items() if "hook" in key and value},
            getattr(getattr(module, "config", None), "_attn_implementation", None),
        )
        for name, module in model.named_modules()
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(folder: Path, model: nn.Module, reason: str, error: type[Exception] = ValueError) -> str:
    """The message with which the routing is refused; the model stays as it was, and routable."""
    before = traces_of(model)
    with pytest.raises(error, match=reason) as caught:
        sr.RoutedModel.from_pretrained(model, folder)
    assert traces_of(model) == before
    sr.route(model).detach()
    return str(caught.value)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the routing "both", its parameters moved."""
    routed = sr.route(llama(), CONFIGS["both"])
    learn(routed)
    routed.save_pretrained(tmp_path / "routing")
    return tmp_path / "routing"


def rewrite(folder: Path, change: Callable[[dict], object]) -> None:
    record = json.loads((folder / CONFIG_FILE).read_text())
    change(record)
    (folder / CONFIG_FILE).write_text(json.dumps(record))


def put_parameters(folder: Path, weights: bytes) -> None:
    """Replaces the parameters and makes the config agree with them, as a forger would."""
    (folder / PARAMETER_FILE).write_bytes(weights)
    rewrite(folder, lambda record: record.update(parameters_sha256=hashlib.sha256(weights).hexdigest()))


# --- there and back


@every_config
def test_a_routing_with_learned_parameters_is_bit_for_bit_the_same_after_save_and_load(name, tmp_path):
    routed = sr.route(llama(), CONFIGS[name])
    learn(routed)
    expected, walked = {n: t.clone() for n, t in routed.noise_parameters().items()}, walk(routed)
    routed.save_pretrained(tmp_path / "a" / "deep" / "folder")
    assert set(contents(tmp_path / "a" / "deep" / "folder")) == FILES

    again = sr.RoutedModel.from_pretrained(llama(), tmp_path / "a" / "deep" / "folder")
    assert again.config == CONFIGS[name]
    assert again.noise_parameters().keys() == expected.keys()
    for key, parameter in again.noise_parameters().items():
        assert torch.equal(parameter, expected[key]), key
        assert parameter.dtype == torch.float32
    assert all(p.requires_grad for n, p in again.named_parameters() if not n.startswith("model."))
    assert torch.equal(walk(again), walked)


@every_config
def test_saving_twice_writes_the_same_bytes(name, tmp_path):
    routed = sr.route(llama(), CONFIGS[name])
    routed.save_pretrained(tmp_path / "one")
    sr.RoutedModel.from_pretrained(llama(), tmp_path / "one").save_pretrained(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_routing_saved_over_another_replaces_it(saved):
    routed = sr.route(llama(), CONFIGS["latent"])
    learn(routed, seed=6)
    routed.save_pretrained(saved)
    again = sr.RoutedModel.from_pretrained(llama(), str(saved))
    assert again.config == CONFIGS["latent"]
    assert torch.equal(walk(again), walk(routed))
    assert set(contents(saved)) == FILES


def test_the_files_are_plain_json_and_safetensors_that_everyone_may_read(saved):
    record = json.loads((saved / CONFIG_FILE).read_text())
    assert set(record) == {"noise_version", "model", "parameters_sha256", "routing"}
    assert record["noise_version"] == sr.noise.NOISE_VERSION
    assert record["model"]["model_type"] == "llama"
    assert sr.RoutingConfig.from_dict(record["routing"]) == CONFIGS["both"]
    stored = load_file(saved / PARAMETER_FILE)
    assert {n: tuple(t.shape) for n, t in stored.items() if n.startswith("structural")} == {
        "structural.mu": (3, 32),
        "structural.sigma": (3, 32),
    }
    for file in FILES:
        assert (saved / file).stat().st_mode & 0o444 == 0o444


def test_parameters_loaded_into_a_wider_or_narrower_model_keep_their_bits(saved):
    expected = load_file(saved / PARAMETER_FILE)
    for dtype in (torch.float64, torch.bfloat16):
        routed = sr.RoutedModel.from_pretrained(llama().to(dtype), saved)
        assert all(torch.equal(p.float(), expected[n]) for n, p in routed.noise_parameters().items())


def test_saving_leaves_the_model_and_its_parameters_as_they_were(tmp_path):
    routed = sr.route(llama(), CONFIGS["both"])
    learn(routed)
    before = {n: t.clone() for n, t in routed.state_dict().items()}
    walked = walk(routed)
    routed.save_pretrained(tmp_path)
    assert all(torch.equal(t, before[n]) for n, t in routed.state_dict().items())
    assert torch.equal(walk(routed), walked)


# --- never half-written


@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize("failing", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize(
    "interrupt", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "interrupted"]
)
def test_a_failing_write_leaves_the_earlier_routing_and_no_other_file(saved, monkeypatch, function, failing, interrupt):
    before = contents(saved)
    routed = sr.route(llama(), CONFIGS["latent"])
    learn(routed, seed=6)
    real, calls = getattr(os, function), []

    def fail_once(*args, **kwargs):
        calls.append(args)
        if len(calls) == failing + 1:
            raise interrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, function, fail_once)
        with pytest.raises(type(interrupt)):
            routed.save_pretrained(saved)
    assert len(calls) > failing
    assert contents(saved) == before
    assert sr.RoutedModel.from_pretrained(llama(), saved).config == CONFIGS["both"]


@pytest.mark.parametrize("failing", [0, 1], ids=["first", "second"])
def test_a_failing_first_save_leaves_nothing_that_could_pass_for_a_routing(tmp_path, monkeypatch, failing):
    real, calls = os.replace, []

    def fail_once(*args, **kwargs):
        calls.append(args)
        if len(calls) == failing + 1:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail_once)
        with pytest.raises(OSError, match="No space left"):
            sr.route(llama()).save_pretrained(tmp_path / "new")
    assert CONFIG_FILE not in contents(tmp_path / "new")
    assert not [name for name in contents(tmp_path / "new") if name.startswith(".")]


def test_a_file_in_the_folder_s_place_is_an_error_and_stays(tmp_path):
    (tmp_path / "taken").write_text("mine")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(OSError, match="taken"):
            sr.route(llama()).save_pretrained(folder)
    assert contents(tmp_path) == {"taken": b"mine"}


def test_a_folder_in_a_file_s_place_is_an_error_and_leaves_no_other_file(tmp_path):
    for name in FILES:
        folder = tmp_path / name.replace(".", "-")
        (folder / name).mkdir(parents=True)
        with pytest.raises(OSError, match=name):
            sr.route(llama()).save_pretrained(folder)
        assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_an_unwritable_folder_is_an_error_and_the_earlier_routing_stays(saved, monkeypatch):
    def unwritable(*arguments, **options):
        raise PermissionError(13, "Permission denied")  # root may write anywhere, so the refusal is played

    before = contents(saved)
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "mkdtemp", unwritable)
        with pytest.raises(PermissionError):
            sr.route(llama(), CONFIGS["latent"]).save_pretrained(saved)
    assert contents(saved) == before
    if Path("/proc/self").exists():  # a file system that refuses even root
        with pytest.raises(OSError, match="proc"):
            sr.route(llama()).save_pretrained("/proc/routing")


def test_a_model_whose_routing_could_not_be_saved_still_walks(tmp_path):
    routed = sr.route(llama())
    before = walk(routed)
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match="taken"):
        routed.save_pretrained(tmp_path / "taken")
    assert torch.equal(walk(routed), before)


# --- corrupt files


@cache
def good_files() -> tuple[bytes, bytes]:
    """config and parameters of the small routing that the corruption tests damage."""
    with tempfile.TemporaryDirectory() as folder:
        routed = sr.route(llama(), CONFIGS["latent"])
        learn(routed)
        routed.save_pretrained(folder)
        routed.detach()
        return (Path(folder) / CONFIG_FILE).read_bytes(), (Path(folder) / PARAMETER_FILE).read_bytes()


@cache
def shared_llama() -> nn.Module:
    return llama()


def put(folder: Path, config: bytes, parameters: bytes) -> Path:
    (folder / CONFIG_FILE).write_bytes(config)
    (folder / PARAMETER_FILE).write_bytes(parameters)
    return folder


on_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@on_one_folder
@given(place=st.integers(0, 2**32), flip=st.integers(1, 255))
@example(place=0, flip=1)
@example(place=-1, flip=128)
def test_any_flipped_byte_of_the_parameters_is_refused(tmp_path, place, flip):
    config, parameters = good_files()
    damaged = bytearray(parameters)
    damaged[place % len(damaged)] ^= flip
    refused(put(tmp_path, config, bytes(damaged)), shared_llama(), f"{PARAMETER_FILE} is truncated, corrupt")


@on_one_folder
@given(length=st.integers(0, 2**32))
@example(length=0)
@example(length=7)
def test_any_truncation_of_the_parameters_is_refused(tmp_path, length):
    config, parameters = good_files()
    damaged = parameters[: length % len(parameters)]
    refused(put(tmp_path, config, damaged), shared_llama(), f"{PARAMETER_FILE} is truncated, corrupt")


@on_one_folder
@given(extra=st.binary(min_size=1, max_size=20))
def test_anything_appended_to_the_parameters_is_refused(tmp_path, extra):
    config, parameters = good_files()
    refused(put(tmp_path, config, parameters + extra), shared_llama(), f"{PARAMETER_FILE} is truncated, corrupt")


@on_one_folder
@given(length=st.integers(0, 2**32))
def test_any_truncation_of_the_config_is_refused(tmp_path, length):
    config, parameters = good_files()
    damaged = config[: length % (len(config) - 2)]  # without the closing brace and the line's end
    refused(put(tmp_path, damaged, parameters), shared_llama(), f"{CONFIG_FILE} is corrupt")


@pytest.mark.filterwarnings("ignore::stochroute.config.UnknownConfigKeys")  # the flipped byte was the version's
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 2**32), byte=st.integers(0, 255))
def test_any_other_byte_in_the_config_gives_a_valid_routing_or_a_value_error(tmp_path, place, byte):
    config, parameters = good_files()
    damaged = bytearray(config)
    damaged[place % len(damaged)] = byte
    model = shared_llama()
    before = traces_of(model)
    try:
        routed = sr.RoutedModel.from_pretrained(model, put(tmp_path, bytes(damaged), parameters))
    except ValueError as error:
        assert str(error)  # noqa: PT017
    else:
        routed.detach()
    assert traces_of(model) == before


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"3",
        b'"routing"',
        b"{}",
        b"\xff\xfe{",
        b"\x80",
        b'{"noise_version": 1}',
        b"\x00" * 40,
    ],
    ids=repr,
)
def test_a_config_that_is_no_routing_is_refused_by_file_with_the_remedy(saved, text):
    (saved / CONFIG_FILE).write_bytes(text)
    assert "save the routing again" in refused(saved, llama(), f"{CONFIG_FILE} is corrupt")


@pytest.mark.parametrize("key", ["noise_version", "model", "parameters_sha256", "routing"])
def test_a_config_that_lacks_a_key_is_refused_by_that_key(saved, key):
    rewrite(saved, lambda record: record.pop(key))
    assert key in refused(saved, llama(), f"{CONFIG_FILE} is corrupt")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("model", f"{CONFIG_FILE} is corrupt|another model"),
        ("parameters_sha256", f"{CONFIG_FILE} is corrupt|truncated, corrupt or of another routing"),
        ("routing", "JSON object"),
        ("noise_version", f"{CONFIG_FILE} is corrupt|noise version"),
    ],
)
@pytest.mark.parametrize("value", [None, [], 5, "text"], ids=repr)
def test_a_config_with_a_value_of_the_wrong_type_is_refused(saved, key, reason, value):
    rewrite(saved, lambda record: record.update({key: value}))
    refused(saved, llama(), reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda routing: routing["structural"].update(strength=-1), "strength"),
        (lambda routing: routing["structural"].update(layers=[0, 99]), r"names \[99\]"),
        (lambda routing: routing["structural"].update(strenght=1), "did you mean 'strength'"),
        (lambda routing: routing["attention"].update(distribution="cauchy"), "distribution"),
        (lambda routing: routing.update(format_version=0), "format_version"),
        (lambda routing: routing.update(experts={}), "llama"),
    ],
)
def test_a_routing_whose_config_is_invalid_or_impossible_here_is_refused(saved, change, reason):
    rewrite(saved, lambda record: change(record["routing"]))
    refused(saved, llama(), reason)


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not safetensors at all", id="text"),
        pytest.param(b"\xff" * 64, id="a header of 2⁶⁴ bytes"),
        pytest.param((8).to_bytes(8, "little") + b"{broken}", id="a broken header"),
        pytest.param(b"\x80\x04\x95" + b"." * 64, id="a pickle"),
    ],
)
def test_parameters_that_are_no_safetensors_are_refused_even_when_the_hash_agrees(saved, weights):
    put_parameters(saved, weights)
    assert "save the routing again" in refused(saved, llama(), f"{PARAMETER_FILE} is corrupt")


def test_foreign_safetensors_are_refused_by_the_hash(saved):
    (saved / PARAMETER_FILE).write_bytes(save({"weight": torch.zeros(3)}))
    refused(saved, llama(), "of another routing")


def missing(parameters: dict[str, Tensor]) -> None:
    del parameters["structural.mu"]


def added(parameters: dict[str, Tensor]) -> None:
    parameters["structural.nu"] = torch.zeros(2)


def misshapen(parameters: dict[str, Tensor]) -> None:
    parameters["structural.sigma"] = parameters["structural.sigma"][:, :-1].contiguous()


@pytest.mark.parametrize("change", [missing, added, misshapen, dict.clear])
def test_parameters_that_do_not_fit_are_refused_with_both_sides_named(saved, change):
    parameters = load_file(saved / PARAMETER_FILE)
    change(parameters)
    put_parameters(saved, save(parameters))
    message = refused(saved, llama(), "holds the parameters .* this model needs")
    assert "structural.sigma" in message


# --- other versions


@pytest.mark.parametrize("version", [sr.noise.NOISE_VERSION + 1, 0, 99])
def test_another_noise_version_is_refused_by_number(saved, version):
    rewrite(saved, lambda record: record.update(noise_version=version))
    message = refused(saved, llama(), f"noise version {version}")
    assert "stochroute version that made it" in message


def test_unknown_keys_of_a_newer_format_are_named_and_left_out(saved):
    rewrite(saved, lambda record: record["routing"].update(format_version=2, colour="red"))
    with pytest.warns(UnknownConfigKeys, match="colour"):
        routed = sr.RoutedModel.from_pretrained(llama(), saved)
    assert routed.config == CONFIGS["both"]


# --- another model


@pytest.mark.parametrize(("name", "value"), [("num_hidden_layers", 4), ("hidden_size", 64), ("num_attention_heads", 2)])
def test_a_routing_of_another_model_is_refused_with_the_difference_named(saved, name, value):
    here = getattr(FAMILIES["llama"].config(), name)
    message = refused(saved, llama(**{name: value}), "was made for another model")
    assert f"{name} {here} (this model: {value})" in message
    assert message.count("this model:") == 1


def test_a_routing_of_another_architecture_is_refused_with_the_difference_named(saved):
    message = refused(saved, FAMILIES["qwen2"].build(torch.float32), "was made for another model")
    assert "model_type 'llama' (this model: 'qwen2')" in message


def test_a_routing_serves_other_weights_of_the_same_shape(saved):
    other = llama()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    again = sr.RoutedModel.from_pretrained(other, saved)
    assert torch.equal(again.noise_parameters()["structural.mu"], load_file(saved / PARAMETER_FILE)["structural.mu"])


def test_a_model_that_is_routed_already_keeps_its_own_routing(saved):
    routed = sr.route(llama())
    before, walked = traces_of(routed.model), walk(routed)
    with pytest.raises(ValueError, match="routed already"):
        sr.RoutedModel.from_pretrained(routed.model, saved)
    assert traces_of(routed.model) == before
    assert torch.equal(walk(routed), walked)


# --- missing files


@pytest.mark.parametrize("name", ["no-such-folder", "nobody/no-such-routing", "./no/such/folder", "a b"])
def test_a_folder_that_is_neither_here_nor_on_the_hub_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(name, llama(), "is no folder here, and no repository on the hub", FileNotFoundError)
    assert repr(name) in message


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    refused(saved, llama(), name, FileNotFoundError)


def test_an_empty_folder_is_named(tmp_path):
    message = refused(tmp_path, llama(), CONFIG_FILE, FileNotFoundError)
    assert str(tmp_path) in message

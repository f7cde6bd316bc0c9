"""Rows of many requests share forward passes, and none of it can be read off a text."""

import random

import pytest
import torch

import stochroute as sr
from families import FAMILIES
from matrix import every_family, random_ids, routed_model, structural
from served import GREEDY, SAMPLED, Client, Letters, finish, scheduler, step, tokens_of, written_alone
from stochroute.paths import derive_paths
from stochroute.serving.noise import Noise
from stochroute.serving.sampling import Sampling
from stochroute.serving.text import GrowingText

CONFIG = sr.RoutingConfig(structural=structural("independent", 1))
MIXED = sr.RoutingConfig(structural=structural("shared", 3), attention=sr.Attention(strength=1.0))
PROMPTS = [ids.tolist() for ids in (*random_ids(4, 9), *random_ids(2, 1, seed=5), *random_ids(2, 23, seed=6))]
SAMPLINGS = [
    GREEDY,
    SAMPLED,
    Sampling(0.7, 5, 1.0, None),
    Sampling(1.0, None, 1.0, 0.1),
    Sampling(1.0, None, 0.8, None),
    Sampling(1.3, None, 1.0, None, spread=True),
]


def same_as_alone(routed: sr.RoutedModel, client: Client) -> None:
    for row in client.job.rows:
        expected = written_alone(routed, list(row.prompt), row.path, row.max_tokens, client.work.sampling)
        assert client.texts[row.index] == expected


# -- texts


@pytest.mark.parametrize("span", ["generated", "all"])
@pytest.mark.parametrize("config", [CONFIG, MIXED], ids=["one kind", "two kinds"])
def test_every_text_of_a_crowd_is_the_one_that_generate_writes_alone(config, span):
    with routed_model("llama", sr.RoutingConfig(**{**vars(config), "span": span})) as routed:
        at = scheduler(routed)
        clients = []
        for number, prompt in enumerate(PROMPTS):
            sampling = SAMPLINGS[number % len(SAMPLINGS)]
            clients.append(Client(at, [prompt], derive_paths(number, 3), max_tokens=5 + number, sampling=sampling))
            step(at)
        finish(at)
        for client in clients:
            same_as_alone(routed, client)


@every_family
def test_rows_of_every_family_join_and_leave_without_a_trace(family):
    dtype = torch.float32 if FAMILIES[family].narrow_softmax else torch.float64
    with routed_model(family, CONFIG, dtype) as routed:
        at = scheduler(routed, most_rows=4)
        clients = [Client(at, [PROMPTS[0], PROMPTS[4]], derive_paths(1, 2), max_tokens=9)]
        step(at)
        clients.append(Client(at, [PROMPTS[6]], derive_paths(2, 1), max_tokens=3, sampling=GREEDY))
        finish(at)
        for client in clients:
            same_as_alone(routed, client)


def test_requests_with_other_noise_stand_side_by_side():
    with routed_model("llama", CONFIG) as routed:
        at = scheduler(routed, most_rows=20)
        noises = [Noise(), Noise(strength=0.9), Noise(hold=4), Noise(span="all"), Noise(0.2, None, "sequence", "all")]
        clients = [Client(at, [PROMPTS[0], PROMPTS[6]], [7, 8], noise=noise) for noise in noises]
        step(at)
        assert len(at.groups) == 4  # where noise starts is each row's own
        assert at.rows_in_flight == 4 * len(noises)
        finish(at)
    for client in clients:
        noise = client.work.noise
        kind = structural("independent", noise.hold or 1, noise.strength or 0.4)
        with routed_model("llama", sr.RoutingConfig(structural=kind, span=noise.span or "generated")) as routed:
            same_as_alone(routed, client)
    assert len({tuple(client.texts) for client in clients}) == len(noises)


def test_strength_0_is_the_original_model_beside_noised_rows():
    with routed_model("llama", CONFIG) as routed:
        at = scheduler(routed)
        clean = Client(at, [PROMPTS[0]], [7], noise=Noise(strength=0.0), sampling=GREEDY)
        noised = Client(at, [PROMPTS[0]], [7], sampling=GREEDY)
        finish(at)
        stock = routed.model.generate(torch.tensor([PROMPTS[0]]), max_new_tokens=8, do_sample=False)
        assert clean.texts == [Letters().decode(stock[0, len(PROMPTS[0]) :].tolist())]
        assert noised.texts != clean.texts


def test_the_routing_is_as_it_was_after_requests_with_other_noise():
    with routed_model("llama", CONFIG) as routed:
        at = scheduler(routed)
        Client(at, [PROMPTS[0]], [7], noise=Noise(0.9, None, 4, "all"))
        finish(at)
        assert routed.config == CONFIG
        assert routed.structural is not None
        assert routed.structural.config == CONFIG.structural
        assert routed.structural.strength.tolist() == pytest.approx([0.4] * 3)


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_arrivals_cancellations_and_room_gives_the_same_texts(seed):
    chance = random.Random(seed)
    with routed_model("llama", CONFIG) as routed:
        at = scheduler(routed, most_rows=chance.randint(2, 9))
        clients = []
        for number in range(12):
            prompts = chance.sample(PROMPTS, chance.randint(1, 2))
            paths = derive_paths(number, chance.randint(1, 4))
            noise = chance.choice([Noise(), Noise(), Noise(strength=0.8), Noise(span="all")])
            tokens = chance.randint(1, 12)
            clients.append(
                Client(at, prompts, paths, tokens, noise, chance.choice(SAMPLINGS), streams=chance.random() < 0.5)
            )
            for _ in range(chance.randint(0, 4)):
                step(at)
            chance.choice(clients).job.cancelled |= chance.random() < 0.2
        finish(at)
        assert at.rows_in_flight == at.rows_waiting == 0
        whole = [client for client in clients if client.finishes == [["length"]] * len(client.job.rows)]
        assert len(whole) >= 5
        for client in whole:
            alone = scheduler(routed)
            again = Client(
                alone, client.work.prompts, client.work.paths[0], client.work.max_tokens[0], client.work.noise,
                client.work.sampling,
            )  # fmt: skip
            finish(alone)
            assert again.texts == client.texts


def test_a_text_outgrows_the_cache_it_began_in():
    """The cache has a few dozen spare slots, so all of it moves several times."""
    with routed_model("llama", CONFIG) as routed:
        at = scheduler(routed)
        first = Client(at, [PROMPTS[4]], [7, 8], max_tokens=120)
        for _ in range(60):
            step(at)
        second = Client(at, [PROMPTS[6]], [9], max_tokens=100)
        finish(at)
        same_as_alone(routed, first)
        same_as_alone(routed, second)


# -- sharing


def shapes_of(routed: sr.RoutedModel, shapes: list[tuple[int, int]]):
    return routed.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )


def test_prompts_are_computed_once_and_all_rows_share_one_forward_pass():
    shapes: list[tuple[int, int]] = []
    with routed_model("llama", CONFIG) as routed:
        at = scheduler(routed)
        for number in range(3):  # the same prompt in three requests at once
            Client(at, [PROMPTS[0], PROMPTS[6]], derive_paths(number, 2), max_tokens=3)
        hook = shapes_of(routed, shapes)
        finish(at)
        hook.remove()
    assert shapes == [(2, len(PROMPTS[6]) - 1), (12, 1), (12, 1), (12, 1)]


def test_a_request_larger_than_the_room_prefills_once():
    shapes: list[tuple[int, int]] = []
    with routed_model("llama", CONFIG) as routed:
        at = scheduler(routed, most_rows=2)
        client = Client(at, [PROMPTS[0]], derive_paths(3, 5), max_tokens=2)
        hook = shapes_of(routed, shapes)
        finish(at)
        hook.remove()
        same_as_alone(routed, client)
    assert shapes == [(1, len(PROMPTS[0]) - 1), (2, 1), (2, 1), (2, 1), (2, 1), (1, 1), (1, 1)]
    assert not client.job.prefilled


# -- ends


def test_a_text_ends_at_a_stop_token_and_counts_it():
    with routed_model("llama", CONFIG) as routed:
        alone = tokens_of(written_alone(routed, PROMPTS[0], 7, 8, GREEDY))
        stop = next(token for token in alone[2:] if token not in alone[:2])
        at = scheduler(routed, stops=frozenset([stop]))
        client = Client(at, [PROMPTS[0]], [7], sampling=GREEDY)
        finish(at)
    end = alone.index(stop)
    assert client.texts == [Letters().decode(alone[:end])]
    assert client.finishes == [["stop"]]
    assert client.job.rows[0].written == alone[: end + 1]


@pytest.mark.parametrize("streams", [True, False])
def test_a_text_ends_before_a_stop_string(streams):
    with routed_model("llama", CONFIG) as routed:
        alone = written_alone(routed, PROMPTS[0], 7, 8, SAMPLED)
        at = scheduler(routed)
        client = Client(at, [PROMPTS[0]], [7], stops=(alone[3:5], "never"), streams=streams)
        finish(at)
    assert client.texts == [alone[:3]]
    assert client.finishes == [["stop"]]


def test_a_cancelled_request_frees_its_rows_at_the_next_step():
    with routed_model("llama", CONFIG) as routed:
        at = scheduler(routed, most_rows=3)
        running, waiting = (Client(at, [PROMPTS[0]], derive_paths(n, 3), max_tokens=50) for n in range(2))
        step(at)
        assert (at.rows_in_flight, at.rows_waiting) == (3, 3)
        running.job.cancelled = True
        step(at)
        assert running.finishes == [["cancelled"]] * 3
        assert (at.rows_in_flight, at.rows_waiting) == (3, 0)
        waiting.job.cancelled = True
        step(at)
        assert at.idle
        assert not at.groups


def test_a_request_that_takes_too_long_is_given_up_wherever_it_is():
    with routed_model("llama", CONFIG) as routed:
        at = scheduler(routed, most_rows=1)
        clients = [Client(at, [PROMPTS[0]], [n], max_tokens=50, timeout=-1) for n in (1, 2)]
        finish(at)
        assert [client.finishes for client in clients] == [[["timeout"]], [["timeout"]]]


def test_a_failing_forward_pass_ends_every_request_and_nothing_else():
    with routed_model("llama", CONFIG) as routed:
        at = scheduler(routed, most_rows=2)
        clients = [Client(at, [PROMPTS[0]], [n, n + 1], max_tokens=50) for n in (1, 3)]
        step(at)
        for piece in at.fail():
            piece.job.receive(piece)
        assert [client.finishes for client in clients] == [[["error"]] * 2] * 2
        assert at.idle
        later = Client(at, [PROMPTS[0]], [9])
        finish(at)
        same_as_alone(routed, later)


# -- log-probabilities and receipts


def test_log_probabilities_are_those_of_the_routed_model_before_temperature():
    with routed_model("llama", CONFIG) as routed:
        at = scheduler(routed)
        client = Client(at, [PROMPTS[0]], [7], top_logprobs=3, sampling=Sampling(0.5, None, 0.9, None))
        finish(at)
        written = client.job.rows[0].written
        ids = torch.tensor([PROMPTS[0] + written])
        with torch.no_grad(), routed.follow([7], start=len(PROMPTS[0]) - 1):
            log_p = routed.model(ids).logits[0, len(PROMPTS[0]) - 1 : -1].log_softmax(-1)
    tokens = [token for piece in client.pieces for token in piece.tokens]
    assert [token.id for token in tokens] == written
    for token, expected in zip(tokens, log_p, strict=True):
        assert token.logprob == pytest.approx(expected[token.id].item(), abs=1e-5)
        values, ids = expected.topk(3)
        assert [id for id, _ in token.top] == ids.tolist()
        assert [value for _, value in token.top] == pytest.approx(values.tolist(), abs=1e-5)


@pytest.mark.parametrize("noise", [Noise(), Noise(strength=0.8, hold="sequence", span="all")], ids=["own", "other"])
def test_a_receipt_of_the_server_is_taken_by_generate_without_a_complaint(noise):
    with routed_model("llama", CONFIG) as routed:
        at = scheduler(routed)
        client = Client(at, [PROMPTS[0]], [7], noise=noise)
        finish(at)
    kind = structural("independent", noise.hold or 1, noise.strength or 0.4)
    with routed_model("llama", sr.RoutingConfig(structural=kind, span=noise.span or "generated")) as routed:
        out = routed.generate(  # a ReplayMismatch warning would be an error
            torch.tensor([PROMPTS[0]]), paths=client.job.receipts, max_new_tokens=8, do_sample=True, temperature=1.2,
            top_k=0, top_p=0.95,
        )  # fmt: skip
    assert Letters().decode(out.generated[0].tolist()) == client.texts[0]
    assert out.receipts == client.job.receipts


def test_growing_text_is_what_the_rows_hand_out():
    text = GrowingText(Letters(), [], ())
    assert text.push([1, 2]) + text.push([3]) + text.finish() == Letters().decode([1, 2, 3])

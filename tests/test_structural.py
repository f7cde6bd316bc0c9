"""Structural routing: what is added at a feed-forward output, how large it is, and where."""

import copy
from collections.abc import Sequence
from contextlib import contextmanager

import pytest
import torch

import stochroute as sr
from families import HIDDEN
from matrix import PATHS, assert_differ, padded, random_ids, routed_model, stock_model, structural

IDS = random_ids(3, 24)
DEPTH = 3


@contextmanager
def outputs_of(model, layers: Sequence[int] = range(DEPTH)):
    """Collects what leaves each feed-forward block, noise included: lists of (b, s, hidden) by layer."""
    seen = {layer: [] for layer in layers}
    blocks = model.model.layers
    handles = [
        blocks[layer].mlp.register_forward_hook(lambda _, __, out, layer=layer: seen[layer].append(out.clone()))
        for layer in layers
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def noise_in(
    config: sr.Structural, paths=PATHS, start: int | list[int] = 0, ids=IDS, mask=None, dtype=torch.float32
) -> torch.Tensor:
    """ε itself, (layers, b, s, hidden): the feed-forward weights are zero, so noise is all that comes out."""
    model = copy.deepcopy(stock_model("llama", dtype))
    for layer in model.model.layers:
        layer.mlp.down_proj.weight.zero_()
    routed = sr.route(model, sr.RoutingConfig(structural=config, span="all"))
    with outputs_of(model) as seen, routed.follow(paths, start=start):
        model(input_ids=ids, attention_mask=mask)
    return torch.stack([seen[layer][0] for layer in range(DEPTH)])


def absolute(form="independent", hold: int | str = 1, strength=1.0, **settings) -> sr.Structural:
    return structural(form, hold, strength, scale="absolute", **settings)


@pytest.mark.parametrize("form", ["shared", "independent", "latent"])
@pytest.mark.parametrize("distribution", ["normal", "uniform", "rademacher"])
def test_absolute_strength_is_the_standard_deviation(form, distribution):
    paths = sr.derive_paths(3, 64)
    noise = noise_in(absolute(form, 1, 0.7, distribution=distribution), paths, ids=IDS[:1].expand(64, -1))
    assert noise.std().item() == pytest.approx(0.7, rel=0.03)
    assert abs(noise.mean().item()) < 0.02


@torch.no_grad()
@pytest.mark.parametrize("form", ["shared", "independent", "latent"])
def test_relative_strength_is_the_standard_deviation_over_the_rms_at_that_very_position(form):
    model = stock_model("llama")
    paths, ids = sr.derive_paths(3, 64), IDS[:1].expand(64, -1)
    with outputs_of(model, [0]) as clean:
        model(input_ids=ids)
    config = sr.RoutingConfig(structural=structural(form, 1, 0.3), span="all")
    with routed_model("llama", config) as routed, outputs_of(model, [0]) as noised, routed.follow(paths):
        model(input_ids=ids)
    before, after = clean[0][0], noised[0][0]  # layer 0 reads the same input in both
    rms = before.square().mean(-1)[0].sqrt()
    assert rms.max() > 1.2 * rms.min()  # or the test could not tell a position's own RMS from another's
    measured = (after - before).square().mean((0, 2)).sqrt()
    tolerance = 0.2 if form == "latent" else 0.1  # 4 numbers a draw instead of 32
    assert ((measured / rms / 0.3 - 1).abs() < tolerance).all()
    whole = (after - before).square().mean().sqrt() / before.square().mean().sqrt()
    assert whole.item() == pytest.approx(0.3, rel=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_xi_has_the_same_bits_alone_and_padded_in_any_order(dtype):
    lengths, order = [24, 9, 15], [2, 0, 1]
    ids, mask = padded(IDS[order], [lengths[row] for row in order], 30)
    for form in ("shared", "independent", "latent"):
        for hold in (1, 3, "sequence"):
            config = absolute(form, hold)
            batch = noise_in(config, [PATHS[row] for row in order], ids=ids, mask=mask, dtype=dtype)
            for place, row in enumerate(order):
                alone = noise_in(config, [PATHS[row]], ids=IDS[row : row + 1, : lengths[row]], dtype=dtype)
                real = batch[:, place, mask[place].bool()]
                # the latent form multiplies its bit-equal z by U
                assert (
                    torch.equal(real, alone[:, 0]) if form != "latent" else torch.allclose(real, alone[:, 0], atol=1e-5)
                )


def test_xi_is_the_published_draw():
    """Site by site the value that `stochroute.noise` gives for (path, layer, position, channel)."""
    noise = noise_in(absolute("independent", 3))
    keys = sr.noise.key_words(PATHS)
    for layer in range(DEPTH):
        for position in (0, 2, 3, 23):
            block = torch.full((3,), position // 3)
            drawn = sr.noise.vector_noise(keys, HIDDEN, block, layer, sr.noise.Kind.FFN)
            assert torch.equal(noise[layer, :, position], drawn)


@pytest.mark.parametrize("form", ["shared", "independent", "latent"])
def test_hold_says_how_many_positions_share_a_draw(form):
    every, third, whole = (noise_in(absolute(form, hold)) for hold in (1, 3, "sequence"))
    assert not torch.equal(every[:, :, 0], every[:, :, 1])
    for position in range(24):
        assert torch.equal(third[:, :, position], third[:, :, position // 3 * 3])
        assert torch.equal(whole[:, :, position], whole[:, :, 0])
    for first in range(0, 21, 3):
        assert not torch.equal(third[:, :, first], third[:, :, first + 3])


def test_hold_blocks_count_from_position_zero_whatever_the_start():
    late = noise_in(absolute("shared", 3), start=[4, 5, 8])
    early = noise_in(absolute("shared", 3))
    for row, start in enumerate([4, 5, 8]):
        assert (late[:, row, :start] == 0).all()
        assert torch.equal(late[:, row, start:], early[:, row, start:])


def test_the_shared_form_gives_all_layers_one_draw_and_the_independent_form_does_not():
    shared, independent = noise_in(absolute("shared")), noise_in(absolute("independent"))
    for layer in (1, 2):
        assert torch.equal(shared[layer], shared[0])
        correlation = torch.corrcoef(torch.stack((independent[layer].flatten(), independent[0].flatten())))[0, 1]
        assert correlation.abs() < 0.1


def test_the_latent_form_stays_in_a_subspace_of_its_rank_with_one_z_for_all_layers():
    noise = noise_in(absolute("latent"), sr.derive_paths(1, 8), ids=IDS[:1].expand(8, -1)).double()
    for layer in range(DEPTH):
        singular = torch.linalg.svdvals(noise[layer].flatten(0, 1))
        assert (singular[:4] > 1).all()
        assert (singular[4:] < 1e-4).all()
    # one z: what one layer got is a linear function of what another got
    assert torch.linalg.matrix_rank(torch.cat(noise.flatten(1, 2).unbind(), dim=-1), rtol=1e-4) == 4


def test_the_latent_basis_starts_orthogonal_with_unit_variance_a_channel():
    routed = sr.route(copy.deepcopy(stock_model("llama")), sr.RoutingConfig(structural=structural("latent")))
    basis = dict(routed.noise_parameters())["structural.basis"].double()
    gram = basis.transpose(1, 2) @ basis
    assert torch.allclose(gram, torch.eye(4, dtype=torch.float64) * HIDDEN / 4, atol=1e-4)
    assert not torch.allclose(basis[0], basis[1], atol=0.1)


@pytest.mark.parametrize(
    ("layers", "noised"),
    [("all", [0, 1, 2]), ("upper_third", [2]), ("middle_third", [1]), ("lower_third", [0]), ((0, 2), [0, 2])],
)
def test_only_the_layers_asked_for_are_noised(layers, noised):
    noise = noise_in(sr.Structural(layers=layers, strength=1.0, scale="absolute", hold=1))
    assert [layer for layer in range(DEPTH) if noise[layer].abs().max() > 0] == noised


def test_strength_can_differ_from_layer_to_layer():
    noise = noise_in(sr.Structural(layers=(0, 1, 2), strength=(0.5, 0.0, 2.0), scale="absolute", hold=1))
    assert torch.equal(noise[2], noise[0] * 4)
    assert (noise[1] == 0).all()


@pytest.mark.parametrize(
    ("schedule", "factor"),
    [
        (sr.config.Schedule("linear", 10), lambda d: max(0.0, 1 - d / 10)),
        (
            sr.config.Schedule("cosine", 10),
            lambda d: (1 + torch.cos(torch.tensor(torch.pi * min(d / 10, 1.0))).item()) / 2,
        ),
    ],
    ids=["linear", "cosine"],
)
def test_a_schedule_fades_with_the_distance_from_the_start(schedule, factor):
    constant = noise_in(absolute("shared", 1), start=4)
    fading = noise_in(absolute("shared", 1, schedule=schedule), start=4)
    for position in range(24):
        expected = 0.0 if position < 4 else factor(position - 4)
        assert torch.allclose(fading[:, :, position], constant[:, :, position] * expected, atol=1e-6)


@torch.no_grad()
def test_strength_multiplies_mu_and_sigma():
    model = copy.deepcopy(stock_model("llama", torch.float32))
    for layer in model.model.layers:
        layer.mlp.down_proj.weight.zero_()
    routed = sr.route(model, sr.RoutingConfig(structural=absolute("shared", 1, 0.5), span="all"))
    noise = routed.noise_parameters()
    noise["structural.mu"].fill_(3.0)
    noise["structural.sigma"].fill_(2.0)
    with outputs_of(model) as seen, routed.follow(PATHS):
        model(input_ids=IDS)
    xi = noise_in(absolute("shared", 1))
    assert torch.allclose(seen[1][0], 0.5 * (3.0 + 2.0 * xi[1]), atol=1e-6)


def test_gradients_stay_finite_where_a_feed_forward_output_is_exactly_zero():
    """A projection that starts at zero is common, and the square root of its RMS has no slope there."""
    model = copy.deepcopy(stock_model("llama", torch.float32))
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.zero_()
    routed = sr.route(model, sr.RoutingConfig(structural=structural("shared", 1, 0.3), span="all"))
    with routed.follow(PATHS):
        model(input_ids=IDS, labels=IDS).loss.backward()
    for name, parameter in routed.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_span_generated_leaves_the_prompt_clean_up_to_its_last_token():
    config = sr.RoutingConfig(structural=structural("shared", 1, 0.5))
    with routed_model("llama", config) as routed, outputs_of(routed.model, [0]) as seen:
        out = routed.generate(input_ids=IDS[:1, :6], paths=3, seed=1, max_new_tokens=4)
        prefill = seen[0][0]
        with routed.suspended():
            routed.model(input_ids=IDS[:1, :5])
    assert out.starts == [5, 5, 5]
    assert torch.equal(prefill, seen[0][-1])  # one clean row for all three paths


@torch.no_grad()
def test_a_named_site_takes_the_noise():
    model = stock_model("llama")
    sites = {0: "model.layers.0.self_attn.o_proj", 1: "model.layers.1.mlp"}
    config = sr.RoutingConfig(structural=structural("shared", 1, 0.5), span="all")
    with routed_model("llama", config, sites=sites) as routed, outputs_of(model) as seen:
        model(input_ids=IDS)
        with routed.follow(PATHS):
            model(input_ids=IDS)
    assert routed.structural.layers == [0, 1]
    assert_differ(seen[0][1], seen[0][0])

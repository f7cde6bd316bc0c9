"""The grid of Philox words in Triton against the one in torch; interpreted where there is no GPU."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

import stochroute as sr
from matrix import PATHS
from stochroute.noise.philox import philox_words
from triton_device import DEVICE, triton_for_tests

with triton_for_tests():
    from stochroute.kernels.triton.philox import philox_grid


pytestmark = pytest.mark.usefixtures("triton_here")


def words(*shape: int, seed: int) -> torch.Tensor:
    """int64 words in [0, 2³²)."""
    return torch.randint(1 << 32, shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@pytest.mark.parametrize(
    "shapes",
    [
        [()] * 6,
        [(5,), (3, 1), (), (), (3, 1), (3, 1)],
        [(4, 1), (3, 1, 7), (2, 1, 1, 1), (), (3, 1, 1), (3, 1, 1)],  # as the keys of all layers' attention rows
        [(33,), (2, 3, 1), (1,), (2, 1, 1), (1, 3, 1), ()],
        [(0,), (3, 1), (), (), (3, 1), (3, 1)],
    ],
    ids=str,
)
def test_every_word_is_that_of_torch(shapes):
    given = tuple(words(*shape, seed=seed) for seed, shape in enumerate(shapes))
    assert torch.equal(philox_grid(given), torch.stack(philox_words(given[:4], given[4:]), dim=-1))


def test_strided_counters_and_the_largest_words_are_read_as_they_are():
    keys = sr.noise.key_words([*PATHS, 2**64 - 1]).to(DEVICE)
    counter = torch.full((4, 9), (1 << 32) - 1, device=DEVICE)[:, ::2]
    given = (counter, counter.flip(1), keys[:, :1], keys[:, 1:], keys[:, 0, None], keys[:, 1, None])
    assert torch.equal(philox_grid(given), torch.stack(philox_words(given[:4], given[4:]), dim=-1))


def test_a_grid_of_more_dimensions_is_left_to_torch():
    given = (words(1, 2, 1, 1, 1, seed=0), *[words(2, seed=seed) for seed in range(1, 6)])
    assert philox_grid(given) is None

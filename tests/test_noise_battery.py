"""The words under the noise pass a third party's battery, NIST's SP 800-22."""

import nistrng
import numpy as np
import pytest

from noise_draws import ZERO, Array, matrix, vector
from stochroute.noise import Kind, key_words, vector_noise


@pytest.mark.parametrize("source", ["channels", "keys", "queries", "paths"])
@pytest.mark.usefixtures("raw_words")
def test_the_words_pass_nist_s_battery(source):
    passed = nist(
        {
            "channels": lambda: vector(1 << 14, distribution="word"),
            "keys": lambda: matrix(1, 1 << 14, distribution="word").ravel(),
            "queries": lambda: matrix(1 << 14, 1, distribution="word").ravel(),
            "paths": lambda: (
                vector_noise(key_words(list(range(1 << 14))), 1, ZERO, 0, Kind.FFN, "word").double().numpy().ravel()
            ),
        }[source]()
    )
    assert passed == dict.fromkeys(passed, True)


def test_nist_s_battery_can_fail():
    weyl = (np.arange(1 << 14) * 0x9E3779B1) % 2**32
    assert not all(nist(weyl).values())
    assert not nist(np.full(1 << 14, 0x7FFF7FFF))["monobit"]


def nist(words: Array) -> dict[str, bool]:
    """What the sound and quick ones of the package's tests of SP 800-22 say to 2¹⁹ bits, by name."""
    bits = np.unpackbits(words.astype("<u4").view(np.uint8)).astype(np.int8)
    names = (
        *("monobit", "frequency_within_block", "runs", "longest_run_ones_in_a_block", "binary_matrix_rank"),
        *("dft", "maurers_universal"),
    )
    verdicts = {}
    for name in names:
        # a copy, because some of the package's tests write into their argument; None: too biased to be tested
        outcome = nistrng.run_by_name_battery(name, bits.copy(), nistrng.SP800_22R1A_BATTERY)
        verdicts[name] = outcome is not None and bool(outcome[0].passed)
    return verdicts

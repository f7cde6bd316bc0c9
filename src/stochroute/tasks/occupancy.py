"""How many different boxes n balls hit: the arithmetic of the ceilings.

n draws fall uniformly on M forms, u of which count. Each is missed with probability A = (1 − 1/M)ⁿ, each two of them
with B = (1 − 2/M)ⁿ. The mean and the variance below follow from that (Feller, "An Introduction to Probability
Theory", vol. 1, ch. IV, the classical occupancy problem).
"""

import math


def expected_distinct(forms: int, counted: int, draws: int) -> float:
    """u (1 − A): how many of the `counted` forms are expected among `draws` uniform draws from all `forms`."""
    return -counted * _all_miss(1, forms, draws)


def variance_distinct(forms: int, counted: int, draws: int) -> float:
    """u A + u (u − 1) B − u² A²: the variance of that number.

    Written as u (A − B) + u² A² (B/A² − 1), because A² and B agree to many digits when M is large.
    """
    miss_one, miss_two = _all_miss(1, forms, draws), _all_miss(2, forms, draws)
    if forms <= 2:
        once, twice = 1 + miss_one, 1 + miss_two
        return counted * once + counted * (counted - 1) * twice - (counted * once) ** 2
    covariance = math.expm1(draws * math.log1p(-1 / (forms - 1) ** 2))
    return counted * (miss_one - miss_two) + (counted * (1 + miss_one)) ** 2 * covariance


def _all_miss(boxes: int, forms: int, draws: int) -> float:
    """(1 − boxes/forms)ⁿ − 1, exact to the last digits for many forms."""
    return math.expm1(draws * math.log1p(-boxes / forms)) if boxes < forms else -1.0

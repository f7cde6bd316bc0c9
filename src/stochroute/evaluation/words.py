"""Words, for every measure that counts n-grams: the same ones everywhere."""

import re
from collections import Counter

# a run of letters, digits or apostrophes; a Chinese, Japanese or Korean character; a sign
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+(?:['’][^\W_]+)*|[^\w\s]|_"
)


def words(text: str) -> list[str]:
    """The words of the text in lower case, signs of punctuation being words; each CJK character is one."""
    return _WORD.findall(text.lower())


def ngrams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each run of n words stands in the text."""
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))

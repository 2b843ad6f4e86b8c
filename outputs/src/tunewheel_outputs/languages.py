"""Finds the language of a text by character n-grams (Lui & Baldwin, "langid.py", ACL 2012). Needs the extra
``languages``. The model takes 75 MB."""

from __future__ import annotations

from functools import cache
from typing import Any

LEAST_LETTERS = 24
"""A shorter text gives no reliable guess."""
LETTERS_OF_A_SIGN = 3
"""A Chinese, Japanese or Korean character counts as so many letters of an alphabet."""
FIRST_SIGN = "\u2e80"
LEAST_PROBABILITY = 0.9
ALIKE = (("ar", "ary", "arz"), ("zh", "wuu", "yue"), ("no", "nb", "nn"), ("hr", "bs", "sr"), ("id", "ms"))
"""Groups of languages with similar n-grams. A guess within a group is certain only for the group as a
whole."""
FAMILY = {code: family[0] for family in ALIKE for code in family}
"""By code of a language in such a group, the group's first language."""


def language_of(text: str) -> str | None:
    """Return the ISO 639-1 code of the language of ``text``; None: it is not certain. For a language in a
    group of ``ALIKE``, return the group's first language."""
    start = text[:2_000]
    if sum(_letters(character) for character in start) < LEAST_LETTERS:
        return None
    language, probability = _identifier().classify(start)
    family = FAMILY.get(str(language), str(language))
    if family in FAMILY and probability < LEAST_PROBABILITY:
        probability = sum(p for code, p in _identifier().rank(start) if FAMILY.get(code) == family)
    return family if probability >= LEAST_PROBABILITY else None


def _letters(character: str) -> int:
    if not character.isalpha():
        return 0
    return 1 if character < FIRST_SIGN else LETTERS_OF_A_SIGN


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

"""Which language a text is in, by character n-grams (Lui & Baldwin, "langid.py", ACL 2012)."""

from __future__ import annotations

from functools import cache
from typing import Any

import polars as pl

from tunewheel_curate.stage import Stage, drop

LEAST_LETTERS = 24
"""Below that a guess is a coin toss."""
LEAST_PROBABILITY = 0.9


def language_of(text: str) -> str | None:
    """Return the ISO 639-1 code of ``text``'s language; None where that is not certain."""
    if sum(character.isalpha() for character in text[:2_000]) < LEAST_LETTERS:
        return None
    language, probability = _identifier().classify(text[:2_000])
    return str(language) if probability >= LEAST_PROBABILITY else None


def keep_languages(records: pl.DataFrame, languages: tuple[str, ...]) -> Stage:
    """Drop records whose input is certainly in a language that is not listed. Reasons: ``language: <code>``.

    ``counts`` says how many were kept unsure.
    """
    found = [language_of(text) for text in records["input"]]
    wrong = [f"language: {code}" if code and code not in languages else None for code in found]
    stage = drop("language", records, pl.Series(wrong, dtype=pl.String))
    unsure = sum(code is None for code in found)
    return Stage(stage.name, stage.kept, stage.dropped, {"unsure": unsure} if unsure else {})


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

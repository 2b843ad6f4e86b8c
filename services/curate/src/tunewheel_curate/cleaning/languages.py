"""Drops records in languages that are not wanted."""

from __future__ import annotations

import polars as pl
from tunewheel_outputs.languages import FAMILY, language_of

from tunewheel_curate.stage import Stage, counted, drop


def keep_languages(records: pl.DataFrame, languages: tuple[str, ...]) -> Stage:
    """Drop records whose input is certainly in a language that is not listed. Reasons: ``language: <code>``.

    ``counts`` says how many records of uncertain language were kept.
    """
    found = [language_of(text) for text in records["input"]]
    wanted = {FAMILY.get(code, code) for code in languages}
    wrong = [f"language: {code}" if code and code not in wanted else None for code in found]
    stage = drop("language", records, pl.Series(wrong, dtype=pl.String))
    return counted(stage, records, {row: {"unsure": 1} for row, code in enumerate(found) if code is None})

"""What a version says of customers, sources and experts: pseudonyms, in every file of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
from tunewheel_contracts.pseudonyms import Pseudonyms

if TYPE_CHECKING:
    from tunewheel_curate.pipeline import Build

NOUNS = {"group": "group", "source_id": "source", "validated_by": "expert"}
"""Columns that hold names from outside, each with the noun that its pseudonyms begin with."""


def under_pseudonyms(build: Build, names: Pseudonyms) -> Build:
    """Return ``build`` with pseudonyms in all columns of ``NOUNS``, whichever frame they are in."""
    split, preferences, negatives, replayed = build.split, build.preferences, build.negatives, build.replayed
    return replace(
        build,
        split=replace(split, train=_named(split.train, names), holdout=_named(split.holdout, names),
                      neither=_named(split.neither, names)),
        lineage=_named(build.lineage, names),
        quality=replace(build.quality, review=_named(build.quality.review, names)),
        preferences=preferences and replace(preferences, pairs=_named(preferences.pairs, names)),
        negatives=negatives and replace(negatives, rows=_named(negatives.rows, names)),
        replayed=replayed and replace(replayed, examples=_named(replayed.examples, names)),
    )  # fmt: skip


def _named(frame: pl.DataFrame, names: Pseudonyms) -> pl.DataFrame:
    columns = [_pseudonyms(frame[column], noun, names) for column, noun in NOUNS.items() if column in frame]
    return frame.with_columns(columns)


def _pseudonyms(column: pl.Series, noun: str, names: Pseudonyms) -> pl.Series:
    distinct = column.drop_nulls().unique()
    given = pl.Series([names.of(noun, name) for name in distinct], dtype=pl.String)
    return column.replace_strict(distinct, given, return_dtype=pl.String)

"""Replaces customers, sources and experts by pseudonyms in every file of a version."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
from tunewheel_contracts.pseudonyms import Pseudonyms

if TYPE_CHECKING:
    from tunewheel_curate.pipeline import Build

NOUNS = {"group": "group", "source_id": "source", "validated_by": "expert"}
"""Columns with names from the sources, and the noun with which their pseudonyms begin."""


def under_pseudonyms(build: Build, names: Pseudonyms) -> Build:
    """Return ``build`` with pseudonyms in the columns of ``NOUNS`` of every frame."""
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

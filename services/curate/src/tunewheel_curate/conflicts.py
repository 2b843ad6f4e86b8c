"""Experts who contradict each other: the same question under different labels teaches noise."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tunewheel_curate.similarity import SimilarPair
from tunewheel_curate.stage import Stage, drop

REASON = "conflicting_label"


def drop_conflicts(records: pl.DataFrame) -> Stage:
    """Drop every record whose normalised input also occurs under another label.

    Needs the columns ``key`` and ``label``; a null label contradicts nothing.
    """
    labels = pl.col("label").drop_nulls().n_unique().over("key")
    reason = pl.when((labels > 1) & pl.col("label").is_not_null()).then(pl.lit(REASON))
    return drop("conflicts", records, reason)


def drop_near_conflicts(records: pl.DataFrame, pairs: Sequence[SimilarPair]) -> Stage:
    """Drop both records of every pair (positions in ``records``) whose labels differ."""
    labels = records["label"].to_list()
    contested: set[int] = set()
    for pair in pairs:
        one, other = labels[pair.first], labels[pair.second]
        if one is not None and other is not None and one != other:
            contested |= {pair.first, pair.second}
    reasons = [REASON if position in contested else None for position in range(records.height)]
    return drop("near_conflicts", records, pl.Series(reasons, dtype=pl.String))

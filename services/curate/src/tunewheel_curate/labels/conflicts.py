"""Experts who contradict each other: the same question under different labels teaches noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tunewheel_curate.duplicates.similarity import SimilarPair, SimilarPairs
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
    contested = contradicting(records, pairs)
    members = np.zeros(records.height, np.bool_)
    members[contested.first] = True
    members[contested.second] = True
    reason = pl.when(pl.lit(pl.Series(members))).then(pl.lit(REASON))
    return drop("near_conflicts", records, reason)


def contradicting(records: pl.DataFrame, pairs: Sequence[SimilarPair]) -> SimilarPairs:
    """Return those of ``pairs`` (positions in ``records``) whose labels are known and differ."""
    columns = SimilarPairs.of(pairs)
    ranks = records["label"].rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
    one, other = ranks[columns.first], ranks[columns.second]
    return columns.where((one != other) & (one > 0) & (other > 0))

"""Drops records that contradict each other: the same question with different labels teaches noise.

A record with less trust does not count against one with more: an unverified record cannot remove an expert's.
If two questions are only nearly the same, their difference may explain the different labels. So if both
records have equal trust, both stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from tunewheel_curate.similarity.pairs import SimilarPair, SimilarPairs
from tunewheel_curate.stage import Stage, drop, trust_rank

REASON = "conflicting_label"


def drop_conflicts(records: pl.DataFrame) -> Stage:
    """Drop every record whose normalised input also has another label in a record of equal or higher trust.

    Needs the columns ``key`` and ``label``; a null label contradicts nothing.
    """
    labelled = pl.col("label").is_not_null()
    rank = trust_rank()
    most = rank.filter(labelled).max().over("key")
    labels = pl.col("label").drop_nulls().n_unique().over("key")
    of_the_most_trusted = pl.col("label").filter(labelled & (rank == most)).n_unique().over("key")
    out = labelled & (labels > 1) & ((rank < most) | (of_the_most_trusted > 1))
    return drop("conflicts", records, pl.when(out).then(pl.lit(REASON)))


def drop_near_conflicts(records: pl.DataFrame, pairs: Sequence[SimilarPair]) -> Stage:
    """Drop the less trusted record of every pair (positions in ``records``) whose labels differ. If both have
    equal trust, both stay."""
    contested = contradicting(records, pairs)
    ranks = records.select(trust_rank()).to_series().to_numpy()
    one, other = ranks[contested.first], ranks[contested.second]
    members = np.zeros(records.height, np.bool_)
    members[contested.first[one < other]] = True
    members[contested.second[other < one]] = True
    reason = pl.when(pl.lit(pl.Series(members))).then(pl.lit(REASON))
    return drop("near_conflicts", records, reason)


def contradicting(records: pl.DataFrame, pairs: Sequence[SimilarPair]) -> SimilarPairs:
    """Return those of ``pairs`` (positions in ``records``) whose labels are known and differ."""
    columns = SimilarPairs.of(pairs)
    return columns.where(_contradicts(records, columns))


def agreeing(records: pl.DataFrame, pairs: Sequence[SimilarPair]) -> SimilarPairs:
    """Return those of ``pairs`` (positions in ``records``) whose labels do not contradict each other."""
    columns = SimilarPairs.of(pairs)
    return columns.where(~_contradicts(records, columns))


def _contradicts(records: pl.DataFrame, columns: SimilarPairs) -> npt.NDArray[np.bool_]:
    ranks = records["label"].rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
    one, other = ranks[columns.first], ranks[columns.second]
    return (one != other) & (one > 0) & (other > 0)

"""Drops records that contradict each other: the same question with different labels teaches noise.

Where nearly everybody gives a question one label, the others wait for a person. A record with less trust does
not count against one with more: an unverified record cannot remove an expert's.
If two questions are only nearly the same, their difference may explain the different labels. So if both
records have equal trust, both stay.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl
from tunewheel_contracts.formats.quarantine import SetAside

from tunewheel_curate.quarantine.rules import waiting
from tunewheel_curate.similarity.pairs import SimilarPair, SimilarPairs
from tunewheel_curate.stage import Stage, drop, trust_rank

REASON = "conflicting_label"
MANY = 3


def drop_conflicts(records: pl.DataFrame, released: Collection[str] = ()) -> Stage:
    """Drop every record whose normalised input also has another label in a record of equal or higher trust.
    But if ``MANY`` times as many of the most trusted give one label as all others together, only the others
    are dropped, and wait in quarantine.

    A caller has one vote, however many records they sent; where all records of a question are of one caller,
    each customer has one. Of records trusted alike, those that a person ``released`` go before the others.
    Needs the columns ``key`` and ``label``; a null label contradicts nothing.
    """
    labelled = pl.col("label").is_not_null()
    rank = 2 * trust_rank() + pl.col("record_id").is_in(list(released)).cast(pl.Int32)
    highest = pl.col("_rank").filter(labelled).max().over("key")
    caller, top = pl.col("principal").fill_null(""), pl.col("_top")
    callers = caller.filter(top).n_unique().over("key")
    votes = (
        records.with_columns(rank.alias("_rank"))
        .with_columns((labelled & (pl.col("_rank") == highest)).alias("_top"))
        .with_columns(pl.when(callers > 1).then(caller).otherwise("group").alias("_voter"))
        .with_columns(
            pl.col("_voter").filter(top).n_unique().over("key", "label").alias("_votes"),
            pl.struct("label", "_voter").filter(top).n_unique().over("key").alias("_all"),
            pl.col("label").drop_nulls().n_unique().over("key").alias("_labels"),
            pl.col("label").filter(top).n_unique().over("key").alias("_top_labels"),
        )
        .with_columns((top & (pl.col("_votes") >= MANY * _others())).alias("_leads"))
    )
    contested = labelled & (pl.col("_labels") > 1)
    split, led = pl.col("_top_labels") > 1, pl.col("_leads").any().over("key")
    reason = (
        pl.when(contested & top & split & led & ~pl.col("_leads"))
        .then(pl.lit(SetAside.CONFLICT.value))
        .when(contested & (~top | (split & ~led)))
        .then(pl.lit(REASON))
    )
    evidence = pl.format("{} of {} give the question another label", _others(), "_all")
    stage = waiting(drop("conflicts", votes, reason), votes, evidence)
    return replace(stage, kept=stage.kept.select(records.columns))


def _others() -> pl.Expr:
    return pl.col("_all") - pl.col("_votes")


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

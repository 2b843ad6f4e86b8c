"""Keeps one record per question: the most trusted one, and among those the newest. Order does not matter.

Near-duplicates are dropped after records whose labels contradict more trusted ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl
from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_curate.duplicates.answers import answered_alike
from tunewheel_curate.labels.conflicts import agreeing, drop_near_conflicts
from tunewheel_curate.labels.review import near_answer_conflicting, near_conflicting
from tunewheel_curate.similarity.near_index import NearIndex
from tunewheel_curate.similarity.pairs import SimilarPair, SimilarPairs, components, near_pairs
from tunewheel_curate.stage import Stage, dropped_frame, keep_all, trust_rank

ANSWERED_OTHERWISE = "answered_otherwise"
"""Records that stay although they ask nearly the same as another one, because the answers differ."""


def drop_exact_duplicates(records: pl.DataFrame) -> Stage:
    """Keep the best record of each ``key`` (a normalised input)."""
    return _keep_best("exact_duplicates", records, pl.col("key"), reason="exact_duplicate")


def drop_clusters(name: str, records: pl.DataFrame, pairs: Sequence[SimilarPair], *, reason: str) -> Stage:
    """Keep the best record of each cluster that ``pairs`` connect; the others are dropped for ``reason``."""
    clusters = components(records.height, SimilarPairs.of(pairs))
    cluster = pl.lit(pl.Series("cluster", clusters, dtype=pl.Int64))
    return _keep_best(name, records, cluster, reason=reason)


def _keep_best(name: str, records: pl.DataFrame, cluster: pl.Expr, *, reason: str) -> Stage:
    """Keep the best record of each ``cluster``. Criteria, in this order: higher trust, an answer present,
    later ``occurred_at`` (or publication time, if the record has none), later publication, smaller
    ``record_id``."""
    ranked = records.with_columns(
        cluster.alias("_cluster"),
        trust_rank().alias("_rank"),
        pl.col("output").is_not_null().alias("_answered"),
        pl.coalesce("occurred_at", "published_at").alias("_said"),
    ).sort(
        ["_rank", "_answered", "_said", "published_at", "record_id"],
        descending=[True, True, True, True, False],
        nulls_last=True,
    )
    ranked = ranked.with_columns(pl.col("record_id").first().over("_cluster").alias("_best"))
    lost = ranked.filter(pl.col("record_id") != pl.col("_best")).sort("record_id")
    kept = ranked.filter(pl.col("record_id") == pl.col("_best")).sort("record_id")
    return Stage(
        name=name,
        kept=kept.drop("_cluster", "_rank", "_answered", "_said", "_best"),
        dropped=dropped_frame(lost["record_id"], pl.Series([reason] * lost.height), lost["_best"]),
    )


def find_near_pairs(records: pl.DataFrame, *, minimum: float, earlier: NearIndex) -> Stage:
    """Find the pairs of records whose ``key`` has at least the similarity ``minimum``.

    ``earlier`` saves time and does not change the result. ``near_index`` is the index for the next build.
    """
    pairs, index = near_pairs(records["key"], minimum=minimum, earlier=earlier)
    return replace(keep_all("near_pairs", records), pairs=pairs, near_index=index)


def settle_near_conflicts(
    records: pl.DataFrame, pairs: SimilarPairs, task: TaskSpec, *, threshold: float
) -> Stage:
    """Drop the records that a more trusted record with nearly the same question contradicts, and list what
    people should review. Two questions are nearly the same from the similarity ``threshold`` on."""
    near = pairs.at_least(threshold)
    review = (near_conflicting(records, near), near_answer_conflicting(records, near, task))
    return replace(drop_near_conflicts(records, near), review=review)


def drop_near_duplicates(
    records: pl.DataFrame, pairs: SimilarPairs, task: TaskSpec, *, threshold: float
) -> Stage:
    """Drop the records (columns ``key``, ``label`` and ``output``) that repeat another one: their inputs are
    nearly the same and their answers say the same (``answered_alike``)."""
    near = pairs.at_least(threshold)
    repeated = answered_alike(records, near, task)
    single = drop_clusters("near_duplicates", records, repeated, reason="near_duplicate")
    by_question = {*components(records.height, agreeing(records, near))}
    single.counts[ANSWERED_OTHERWISE] = single.kept.height - len(by_question)
    return single

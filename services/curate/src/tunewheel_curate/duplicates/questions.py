"""Keeps one record per question: the most trusted one, and among those the newest. Order does not matter.

Near-duplicates are dropped after records whose labels contradict more trusted ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_curate.duplicates.answers import answered_alike
from tunewheel_curate.labels.conflicts import agreeing, drop_near_conflicts
from tunewheel_curate.labels.review import near_conflicting
from tunewheel_curate.similarity.near_index import NearIndex
from tunewheel_curate.similarity.pairs import SimilarPair, SimilarPairs, components, near_pairs, pairs_among
from tunewheel_curate.stage import Stage, dropped_frame, trust_rank

ANSWERED_OTHERWISE = "answered_otherwise"
"""Records that stay although they ask nearly the same as another one, because the answers differ."""


def drop_exact_duplicates(records: pl.DataFrame) -> Stage:
    """Keep the best record of each ``key`` (a normalised input)."""
    return _keep_best("exact_duplicates", records, pl.col("key"), reason="exact_duplicate")


def drop_near_duplicates(records: pl.DataFrame, pairs: Sequence[SimilarPair]) -> Stage:
    """Keep the best record of each cluster that ``pairs`` (positions in ``records``) connect."""
    return drop_clusters("near_duplicates", records, pairs, reason="near_duplicate")


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


@dataclass(frozen=True)
class NearOutcome:
    """The stages, the review list, the remaining pairs, and the index for the next build."""

    stages: tuple[Stage, ...]
    pairs: SimilarPairs
    """The remaining similar pairs, as positions in the records that the last stage kept."""
    alike: SimilarPairs
    """The pairs with nearly the same question, as positions in ``singles``."""
    review: pl.DataFrame
    index: NearIndex


def settle_near_duplicates(
    singles: pl.DataFrame, task: TaskSpec, *, threshold: float, related: float, known: NearIndex
) -> NearOutcome:
    """Drop the records in ``singles`` (columns ``key``, ``label`` and ``output``) that repeat another record,
    or that a more trusted record contradicts.

    Two texts are nearly the same from the similarity ``threshold`` on. Two records are duplicates if their
    inputs are nearly the same and their answers say the same (``answered_alike``). The returned ``pairs``
    have at least the similarity ``related``. ``known`` saves time and does not change the result.
    """
    pairs, index = near_pairs(singles["key"], minimum=min(threshold, related), known=known)
    near = pairs.at_least(threshold)
    names = singles["record_id"].to_list()
    agreed = drop_near_conflicts(singles, near)
    among = pairs_among(near, names, agreed.kept["record_id"].to_list())
    repeated = answered_alike(agreed.kept, among, task)
    single = drop_near_duplicates(agreed.kept, repeated)
    by_question = {*components(agreed.kept.height, agreeing(agreed.kept, among))}
    single.counts[ANSWERED_OTHERWISE] = single.kept.height - len(by_question)
    return NearOutcome(
        stages=(agreed, single),
        pairs=pairs_among(pairs, names, single.kept["record_id"].to_list()),
        alike=near,
        review=near_conflicting(singles, near),
        index=index,
    )

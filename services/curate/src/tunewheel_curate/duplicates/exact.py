"""Keeps one record per question: the most trusted one, and among those the newest. Order does not matter."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tunewheel_curate.similarity.pairs import SimilarPair, SimilarPairs, components
from tunewheel_curate.stage import Stage, dropped_frame, trust_rank


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

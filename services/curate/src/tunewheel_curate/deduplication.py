"""One example per question: the most trusted stays, whatever the order the records came in."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tunewheel_curate.similarity import SimilarPair, components
from tunewheel_curate.stage import Stage, dropped_frame, trust_rank


def drop_exact_duplicates(records: pl.DataFrame) -> Stage:
    """Keep the best record of each ``key`` (a normalised input)."""
    return _keep_best("exact_duplicates", records, pl.col("key"), reason="exact_duplicate")


def drop_near_duplicates(records: pl.DataFrame, pairs: Sequence[SimilarPair]) -> Stage:
    """Keep the best record of each cluster that ``pairs`` (positions in ``records``) connect."""
    clusters = components(records.height, ((pair.first, pair.second) for pair in pairs))
    cluster = pl.lit(pl.Series("cluster", clusters, dtype=pl.Int64))
    return _keep_best("near_duplicates", records, cluster, reason="near_duplicate")


def _keep_best(name: str, records: pl.DataFrame, cluster: pl.Expr, *, reason: str) -> Stage:
    """Best is: the higher trust, then an answer present, then the smaller ``record_id``."""
    ranked = records.with_columns(
        cluster.alias("_cluster"),
        trust_rank().alias("_rank"),
        pl.col("output").is_not_null().alias("_answered"),
    ).sort(["_rank", "_answered", "record_id"], descending=[True, True, False])
    ranked = ranked.with_columns(pl.col("record_id").first().over("_cluster").alias("_best"))
    lost = ranked.filter(pl.col("record_id") != pl.col("_best")).sort("record_id")
    kept = ranked.filter(pl.col("record_id") == pl.col("_best")).sort("record_id")
    return Stage(
        name=name,
        kept=kept.drop("_cluster", "_rank", "_answered", "_best"),
        dropped=dropped_frame(lost["record_id"], pl.Series([reason] * lost.height), lost["_best"]),
    )

"""Thumbs without a correction: what users say of served answers, weaker than anything a person wrote.

They count where ``dataset.ratings`` is on. Elsewhere a build is as if there were none: it does not even tell
of records that it left out.
"""

from __future__ import annotations

import polars as pl

from tunewheel_curate.stage import RATED

COLUMNS = ("rating", "rated_output")


def with_ratings(records: pl.DataFrame, *, wanted: bool) -> pl.DataFrame:
    """Return ``records`` (``RECORD_SCHEMA``) without ``COLUMNS``: what was rated up is an output, what was
    rated down one to avoid, both trusted least; without those records where they are not ``wanted``."""
    rated = pl.col("rating").is_not_null()
    if not wanted:
        return records.filter(~rated).drop(COLUMNS)
    told = pl.col("rated_output")
    return records.with_columns(
        pl.when(pl.col("rating") == "up").then(told).otherwise("output").alias("output"),
        pl.when(pl.col("rating") == "down").then(told).otherwise("rejected_output").alias("rejected_output"),
        pl.when(rated).then(pl.lit(RATED)).otherwise("trust").alias("trust"),
    ).drop(COLUMNS)

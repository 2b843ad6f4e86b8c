"""Turns ratings without a correction into outputs and rejected outputs, with the lowest trust.

Ratings count only if ``dataset.ratings`` is on. Otherwise a build ignores them; they are not in its funnel.
"""

from __future__ import annotations

import polars as pl

from tunewheel_curate.stage import RATED

COLUMNS = ("rating", "rated_output")


def with_ratings(records: pl.DataFrame, *, wanted: bool) -> pl.DataFrame:
    """Return ``records`` (``RECORD_SCHEMA``) without ``COLUMNS``. An answer rated up becomes the output, an
    answer rated down the rejected output, both with the lowest trust. Unless ratings are ``wanted``, these
    records are left out."""
    rated = pl.col("rating").is_not_null()
    if not wanted:
        return records.filter(~rated).drop(COLUMNS)
    told = pl.col("rated_output")
    return records.with_columns(
        pl.when(pl.col("rating") == "up").then(told).otherwise("output").alias("output"),
        pl.when(pl.col("rating") == "down").then(told).otherwise("rejected_output").alias("rejected_output"),
        pl.when(rated).then(pl.lit(RATED)).otherwise("trust").alias("trust"),
    ).drop(COLUMNS)

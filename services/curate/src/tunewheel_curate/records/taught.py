"""Answers of a teacher to prompts of production: marked by whoever asked it, validated by nobody."""

from __future__ import annotations

import polars as pl
from tunewheel_contracts.formats.label_prompts import TAUGHT_BY

from tunewheel_curate.stage import TAUGHT

_MARK = f'"{TAUGHT_BY}":'
"""As it stands in canonical JSON; in a value its quotes would be escaped."""


def is_taught() -> pl.Expr:
    """Tell of rows of the record table whether a teacher answered, and no expert stands behind it."""
    marked = pl.col("attributes").str.contains(_MARK, literal=True).fill_null(False)
    return marked & (pl.col("trust") == "unverified")


def with_taught(records: pl.DataFrame) -> pl.DataFrame:
    """Return ``records`` (``RECORD_SCHEMA``), what a teacher answered among them trusted least."""
    trust = pl.when(is_taught()).then(pl.lit(TAUGHT)).otherwise("trust").alias("trust")
    return records.with_columns(trust)

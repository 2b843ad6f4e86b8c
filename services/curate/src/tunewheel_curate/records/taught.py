"""Recognises a teacher's answers to production prompts, which nobody validated."""

from __future__ import annotations

import polars as pl
from tunewheel_contracts.formats.label_prompts import TAUGHT_BY

from tunewheel_curate.stage import TAUGHT

_MARK = f'"{TAUGHT_BY}":'
"""The key as canonical JSON writes it. In a value the quotes would be escaped, so only the key matches."""


def is_taught() -> pl.Expr:
    """Return for rows of the record table whether a teacher answered and no expert validated the answer."""
    marked = pl.col("attributes").str.contains(_MARK, literal=True).fill_null(False)
    return marked & (pl.col("trust") == "unverified")


def with_taught(records: pl.DataFrame) -> pl.DataFrame:
    """Return ``records`` (``RECORD_SCHEMA``) with the lowest trust for a teacher's answers."""
    trust = pl.when(is_taught()).then(pl.lit(TAUGHT)).otherwise("trust").alias("trust")
    return records.with_columns(trust)

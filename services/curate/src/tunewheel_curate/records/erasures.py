"""Selects the rows of the record table that erasures concern. ``contracts`` folds the erasures themselves."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl
from tunewheel_contracts.erasures import Erasure


def erased(erasures: Iterable[Erasure]) -> pl.Expr:
    """Return, for rows of the record table, whether one of ``erasures`` concerns them."""
    expression = pl.lit(False)
    for erasure in erasures:
        subject = (
            pl.col("group") == erasure.customer
            if erasure.customer is not None
            else pl.col("source_id") == erasure.source_id
        )
        until = pl.lit(erasure.until, dtype=pl.Datetime("us", "UTC"))
        before = (pl.col("published_at") <= until) | (pl.col("occurred_at") <= until).fill_null(False)
        expression = expression | ((pl.col("project") == erasure.project) & subject & before)
    return expression

"""Tells beside each row of a version where it comes from, so that eval can say for whom a model got worse.

This is no part of what names a version: the same records make the same version, whoever looked at them.
"""

from __future__ import annotations

import polars as pl

from tunewheel_curate.cleaning.languages import language_of


def with_origin(rows: pl.DataFrame, lineage: pl.DataFrame, *, languages: bool = False) -> pl.DataFrame:
    """Return ``rows`` (of ``EXAMPLE_SCHEMA``) with the columns ``source``, the kind of the first record, and
    ``language``, that of the last question; null without ``languages``, which take a while each."""
    kinds = lineage.select("record_id", pl.col("kind").alias("source")).unique("record_id", keep="first")
    first = pl.col("record_ids").list.first().alias("record_id")
    spoken = [language_of(_asked(messages)) if languages else None for messages in rows["messages"].to_list()]
    return (
        rows.with_columns(first)
        .join(kinds, on="record_id", how="left", maintain_order="left")
        .drop("record_id")
        .with_columns(pl.Series("language", spoken, dtype=pl.String))
    )


def _asked(messages: list[dict[str, str]]) -> str:
    return next((one["content"] for one in reversed(messages) if one["role"] == "user"), "")

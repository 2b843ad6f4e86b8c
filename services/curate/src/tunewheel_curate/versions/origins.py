"""Adds the origin of each row of a version, so that eval can say for whom a model got worse.

The origin does not enter the version's id.
"""

from __future__ import annotations

import polars as pl

from tunewheel_curate.cleaning.languages import language_of


def with_origin(rows: pl.DataFrame, lineage: pl.DataFrame, *, languages: bool = False) -> pl.DataFrame:
    """Return ``rows`` (``EXAMPLE_SCHEMA``) with the columns ``source``, the kind of the first record, and
    ``language``, the language of the last question. ``language`` is null unless ``languages`` is set: finding
    it takes time."""
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

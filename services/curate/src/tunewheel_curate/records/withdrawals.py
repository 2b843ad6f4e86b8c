"""Removes the records of withdrawn documents. ``contracts`` folds the withdrawals themselves."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl
from tunewheel_contracts.events.data import RecordKind
from tunewheel_contracts.withdrawals import Withdrawal

from tunewheel_curate.records.selection import distinct_records
from tunewheel_curate.stage import Stage, dropped_frame


def drop_withdrawn(rows: pl.DataFrame, withdrawals: Iterable[Withdrawal]) -> Stage:
    """Drop withdrawn records and keep one row for each other record (``distinct_records``). Reason:
    ``withdrawn``.

    ``rows`` has every delivery. A record that was withdrawn and published again with the same text is the
    same record, and its later delivery counts.
    """
    kept = distinct_records(not_taken_back(rows, withdrawals))
    gone = rows.join(kept, on="record_id", how="anti")["record_id"].unique().sort()
    return Stage(
        name="withdrawal",
        kept=kept,
        dropped=dropped_frame(gone, pl.Series(["withdrawn"] * len(gone), dtype=pl.String)),
    )


def not_taken_back(rows: pl.DataFrame, withdrawals: Iterable[Withdrawal]) -> pl.DataFrame:
    """Return the ``rows`` (with ``kind``, ``source_id``, ``published_at``) that no withdrawal concerns."""
    until = {withdrawal.document_id: withdrawal.until for withdrawal in withdrawals}
    if not until:
        return rows
    limit = pl.col("source_id").replace_strict(
        list(until), list(until.values()), default=None, return_dtype=pl.Datetime("us", "UTC")
    )
    taken_back = (pl.col("kind") == RecordKind.DOCUMENT.value) & (pl.col("published_at") <= limit)
    return rows.filter(~taken_back.fill_null(False))

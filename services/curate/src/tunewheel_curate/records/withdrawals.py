"""Documents that were withdrawn: folded from the log, the same in whatever order it is read.

A withdrawal takes back what was published up to its moment (``withdrawn_at``, else the event's own time); a
publication exactly at that moment is taken back too, a later one brings the document back. Only these moments
count, so neither the partitions nor the order in which the two topics are read make a difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import RecordKind
from tunewheel_contracts.events.upstream import DocumentWithdrawn
from tunewheel_contracts.fields import Frozen, SourceId, Timestamp

from tunewheel_curate.records.selection import distinct_records
from tunewheel_curate.stage import Stage, dropped_frame


class Withdrawal(Frozen):
    """What was published of ``document_id`` up to ``until`` is not to be learnt from."""

    document_id: SourceId
    until: Timestamp


class Withdrawals:
    """A fold over ``document.withdrawn``; applying an event twice changes nothing."""

    def __init__(self) -> None:
        self._by_project: dict[str, dict[tuple[int, int], Withdrawal]] = {}

    def apply(self, envelope: Envelope[Any], partition: int, offset: int) -> None:
        """Take note of one event, and of where on the log it lies."""
        data = envelope.data
        if isinstance(data, DocumentWithdrawn):
            withdrawal = Withdrawal(document_id=data.document_id, until=data.withdrawn_at or envelope.time)
            self._by_project.setdefault(data.project, {})[partition, offset] = withdrawal

    def upto(self, project: str) -> dict[str, int]:
        """Return, by partition, the offset after the project's last withdrawal: all that is known of it."""
        ends: dict[int, int] = {}
        for partition, offset in self._by_project.get(project, {}):
            ends[partition] = max(offset + 1, ends.get(partition, 0))
        return {str(partition): end for partition, end in sorted(ends.items())}

    def of(self, project: str) -> tuple[Withdrawal, ...]:
        """Return all withdrawals of ``project`` that are known, the latest of each document."""
        return self.before(project, self.upto(project))

    def before(self, project: str, upto: Mapping[str, int]) -> tuple[Withdrawal, ...]:
        """Return the withdrawals before the offsets ``upto``, the latest of each document, sorted by it."""
        latest: dict[str, Withdrawal] = {}
        for (partition, offset), withdrawal in self._by_project.get(project, {}).items():
            if offset >= upto.get(str(partition), 0):
                continue
            known = latest.get(withdrawal.document_id)
            if known is None or known.until < withdrawal.until:
                latest[withdrawal.document_id] = withdrawal
        return tuple(latest[document_id] for document_id in sorted(latest))


def drop_withdrawn(rows: pl.DataFrame, withdrawals: Iterable[Withdrawal]) -> Stage:
    """Return one row per record (``distinct_records``) of what is not withdrawn. Reason: ``withdrawn``.

    ``rows`` holds every delivery: a record that was withdrawn and published again with the same words is the
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
    """Return those of ``rows`` (with ``kind``, ``source_id``, ``published_at``) that no withdrawal takes."""
    until = {withdrawal.document_id: withdrawal.until for withdrawal in withdrawals}
    if not until:
        return rows
    limit = pl.col("source_id").replace_strict(
        list(until), list(until.values()), default=None, return_dtype=pl.Datetime("us", "UTC")
    )
    taken_back = (pl.col("kind") == RecordKind.DOCUMENT.value) & (pl.col("published_at") <= limit)
    return rows.filter(~taken_back.fill_null(False))

"""Reads a project's records from the beginning: the older ones from the record table, the newer ones from the
log. Curate deletes records from the log once the table has them, so together they have all records."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

import polars as pl
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.events.data import RecordIngested, RecordKind
from tunewheel_contracts.formats.dataset import RecordsUpto
from tunewheel_contracts.record_table import record_of, transaction_of
from tunewheel_contracts.topics import RECORD_INGESTED
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.log import WHOLE_LOG_BYTES, Cursor, decoded

from tunewheel_index.indexer import apply
from tunewheel_index.project import Project

Wanted = Collection[str] | None
AT_ONCE = 1_000
"""How many records of the table are applied before other work may go on."""


class RecordTable:
    """The table at ``url``, as it was when this object was made. Use it in a thread.

    Raises:
        TransientError: the store is away. The methods raise it too.
    """

    def __init__(self, url: str) -> None:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        self._url = url
        with self._reaching():
            try:
                self._table = DeltaTable(url)
            except TableNotFoundError:
                self._table = None

    def reached(self, partition: int) -> int:
        """Return the offset of ``record.ingested`` before which the table has all records of ``partition``,
        except invalid and erased ones."""
        if self._table is None:
            return 0
        with self._reaching():  # this reads the table's log in the store
            last = self._table.transaction_version(transaction_of(partition))
        return 0 if last is None else last + 1

    def documents(self, project: str, wanted: Wanted, after: RecordsUpto) -> pl.DataFrame:
        """Return the rows of a project's documents: those of the records ``wanted``; None: all that are at
        the offsets ``after`` (by partition) or later."""
        if self._table is None:
            return pl.DataFrame()
        is_ours = (pl.col("project") == project) & (pl.col("kind") == RecordKind.DOCUMENT.value)
        if wanted is None:
            limits = {int(partition): offset for partition, offset in after.items()}
            limit = pl.col("partition").replace_strict(limits, default=0, return_dtype=pl.Int64)
            is_ours &= pl.col("offset") >= limit
        else:
            is_ours &= pl.col("record_id").is_in(list(wanted))
        with self._reaching():  # an erasure deletes the files of old versions
            return pl.scan_delta(self._table).filter(is_ours).collect()

    @contextmanager
    def _reaching(self) -> Generator[None]:
        from deltalake.exceptions import DeltaError

        try:
            yield
        except (DeltaError, pl.exceptions.ComputeError, OSError) as error:
            raise TransientError(f"cannot read the record table at {self._url}: {error}") from error


async def read_again(project: Project, wanted: Wanted, *, settings: KafkaSettings, table_url: str) -> None:
    """Read the ``wanted`` records of one project, and keep their texts. None: read all records that the
    project has not seen.

    Raises:
        TransientError: the broker or the store is away, or the table lacks records that left the log.
    """
    table = await asyncio.to_thread(RecordTable, table_url)
    rows = await asyncio.to_thread(table.documents, project.name, wanted, project.seen_upto)
    for part in rows.iter_slices(AT_ONCE):
        for record, published_at in await asyncio.to_thread(lambda part=part: list(_records(part))):
            apply(project, record, published_at, again=wanted)
    options = client_options(settings)
    async with Cursor(options, [RECORD_INGESTED.name], fetch_bytes=WHOLE_LOG_BYTES) as cursor:
        partitions = [number for _, number in cursor.spans]
        reached = await asyncio.to_thread(lambda: {number: table.reached(number) for number in partitions})
        await _read_on(cursor, reached, project, wanted)
    project.is_whole = True


def _records(rows: pl.DataFrame) -> Iterator[tuple[RecordIngested, datetime]]:
    for row in rows.iter_rows(named=True):
        yield record_of(row), row["published_at"]


async def _read_on(cursor: Cursor, reached: Mapping[int, int], project: Project, wanted: Wanted) -> None:
    """Read the log from where the table ends. A table beyond the end of the log is that of an earlier topic,
    and has nothing of this one."""
    begins = {at: reached[at[1]] if reached[at[1]] <= span.end else 0 for at, span in cursor.spans.items()}
    gone = {f"{place[1]}": span.begin for place, span in cursor.spans.items() if begins[place] < span.begin}
    if gone:
        reason = (
            f"the record table lacks records that left the log, before the offsets {gone} (by partition): "
            "curate is filling it, or a backup of it is missing (see curate's warnings)"
        )
        raise TransientError(reason)
    behind = {place: span.end for place, span in cursor.spans.items() if begins[place] < span.end}
    cursor.start_from({place: begins[place] for place in behind})
    async for records in cursor.upto(behind):
        for event in filter(None, map(decoded, records)):
            apply(project, event.data, event.time, again=wanted)

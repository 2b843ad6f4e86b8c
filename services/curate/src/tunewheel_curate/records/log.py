"""The log of records: its events as rows of the record table, and the records that the table lacks.

The consumer group's offsets only say which records were handled once. A table that was deleted or restored
from a backup lacks some of them, and the group would not deliver them again. So every start catches up.

Records leave the log days after the table has them. A table that is lost afterwards comes back from a backup.
Without one it is filled from what the log still has and lacks the rest. Every version is then smaller, and no
funnel says why. So each such gap is noted in the object store, and reported at every start and in every later
version. While there is a note nothing is deleted from the log: a backup that is restored needs what came
after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import polars as pl
import structlog
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.record_table import row_of
from tunewheel_contracts.topics import RECORD_INGESTED
from tunewheel_runtime.deadletter import Undecoded
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.log import Cursor, decode
from tunewheel_runtime.partitions import Backlog
from tunewheel_runtime.service import Delivery
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.store import ObjectStore

from tunewheel_curate.records.table import ForeignRecordTable, RecordTable
from tunewheel_curate.stage import RECORD_SCHEMA

log = structlog.get_logger(__name__)


def rows_of(deliveries: Sequence[Delivery[RecordIngested]]) -> pl.DataFrame:
    """Return one row of ``RECORD_SCHEMA`` per delivery."""
    rows = [
        row_of(one.event, partition=one.position.partition, offset=one.position.offset) for one in deliveries
    ]
    return pl.DataFrame(rows, schema=RECORD_SCHEMA)


async def catch_up(
    table: RecordTable,
    settings: ServiceSettings,
    *,
    missing: MissingRecords,
    erasures: Callable[[], Sequence[Erasure]],
) -> int:
    """Append every record of the log that is neither in the table nor erased; return how many. Records that
    the log no longer holds are noted in ``missing``.

    Raises:
        TransientError: the broker or the store is away.
        ForeignRecordTable: the table holds records that come after the log's end; or see
            ``RecordTable.append``.
    """
    new = 0
    async with Cursor(client_options(settings), [RECORD_INGESTED.name]) as cursor:
        spans = {number: span for (_, number), span in sorted(cursor.spans.items())}
        reached = {number: await asyncio.to_thread(table.reached, number) for number in spans}
        if any(reached[n] > span.end for n, span in spans.items()):
            await cursor.look()  # replicas append meanwhile
            check_not_ahead(table.url, reached, {n: span.end for (_, n), span in cursor.spans.items()})
        await missing.compare(begins={n: span.begin for n, span in spans.items()}, reached=reached)
        behind = {(RECORD_INGESTED.name, n): span.end for n, span in spans.items() if reached[n] < span.end}
        cursor.start_from({place: reached[place[1]] for place in behind})
        async for records in cursor.upto(behind):
            rows = rows_of(_readable(records))
            new += await asyncio.to_thread(table.append, rows, erasures=erasures())
    if new:
        log.info("records_caught_up", new=new)
    return new


def check_not_ahead(url: str, reached: Mapping[int, int], ends: Mapping[int, int]) -> None:
    """Refuse a table that was copied after the log. The log's next records would get offsets that the table
    counts as its own, and would be left out.

    Raises:
        ForeignRecordTable: the table at ``url`` has ``reached`` an offset beyond the log's end.
    """
    for partition, end in sorted(ends.items()):
        if (claimed := reached.get(partition, 0)) > end:
            raise ForeignRecordTable(
                f"the record table at {url} has partition {partition} of {RECORD_INGESTED.name} up to offset "
                f"{claimed - 1}, and the log ends at {end}: the table was copied after the log. Restore "
                "records/ from a copy that is older than the log's"
            )


def _readable(records: Sequence[Undecoded]) -> list[Delivery[RecordIngested]]:
    """Decode the valid records. The others become dead letters when they are delivered."""
    deliveries: list[Delivery[RecordIngested]] = []
    for record in records:
        with contextlib.suppress(InvalidEvent):
            deliveries.append(Delivery(decode(record), record.position, record.headers))
    return deliveries


GROUP = "curate.record-ingested"
"""The consumer group of the replicas. It commits an offset once the record is in the table or a dead
letter."""
ReadBacklog = Callable[[], Awaitable[Backlog]]


FOLDER = "missing-records"
_PATH = re.compile(FOLDER + r"/(\d+)-(\d+)-(\d+)\.json")


class Gap(NamedTuple):
    """Offsets [``first``, ``end``) of one partition of ``record.ingested`` that nobody can read any more."""

    partition: int
    first: int
    end: int

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.partition}-{self.first}-{self.end}.json"


class MissingRecords:
    """The gaps of one store. ``warn`` is called for each, with its name."""

    def __init__(self, store: ObjectStore, warn: Callable[[str, str], None]) -> None:
        self._store = store
        self._warn = warn
        self._gaps: set[Gap] = set()

    @property
    def count(self) -> int:
        """How many records are missing in all projects. Offsets in several gaps count once."""
        total, partition, reached = 0, -1, 0
        for gap in sorted(self._gaps):
            if gap.partition != partition:
                partition, reached = gap.partition, 0
            total += max(0, gap.end - max(gap.first, reached))
            reached = max(reached, gap.end)
        return total

    async def recall(self) -> None:
        """Read the noted gaps. Deleting a note from the store ends its reports at the next start.

        Raises:
            TransientError: the store is away.
        """
        for path in await self._store.list(FOLDER):
            if found := _PATH.fullmatch(path):
                self._remember(Gap(*map(int, found.groups())))

    async def compare(self, *, begins: Mapping[int, int], reached: Mapping[int, int]) -> None:
        """Note for each partition the gap between the offset that the table has ``reached`` and the first
        offset of the log (``begins``). Call this before the table appends: afterwards the gap cannot be
        found.

        Raises:
            TransientError: the store is away.
        """
        for partition, begin in begins.items():
            if (first := reached[partition]) < begin:
                gap = Gap(partition, first, begin)
                await self._store.put(gap.path, b"{}")
                self._remember(gap)

    def _remember(self, gap: Gap) -> None:
        if gap in self._gaps:
            return
        self._gaps.add(gap)
        text = (
            f"a backup is missing: {gap.end - gap.first} records of {RECORD_INGESTED.name}, partition "
            f"{gap.partition}, offsets {gap.first} to {gap.end - 1}, are neither in the record table nor on "
            "the log, dataset versions are smaller for it, and nothing more is deleted from the log. Restore "
            "records/ of the store from a backup that has them, or publish their sources again; then remove "
            f"{gap.path} from the store and restart curate"
        )
        self._warn(gap.path, text)

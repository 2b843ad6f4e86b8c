"""Finds one record of a topic by its key, reading from a given time on. For queries that are too rare to
justify following the topic."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Any

from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import TopicSpec

from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.log import Cursor, LogUnreadable, Place, decoded

SLACK = timedelta(seconds=1)
"""Reading begins this much earlier than asked for, so that a clock that was set back a little hides no
record."""
MOST_UNFINISHED = 1_000
"""Most queries that ran out of time whose place on the log is remembered."""
PATIENCE_SECONDS = 2.0
"""If the given time is recent, the record may not be on the log yet; it is waited for this long."""
RECENT = timedelta(minutes=1)
LONGEST_SECONDS = 10.0
"""Longest time for one query, including the wait for earlier queries. aiokafka does not report an unavailable
broker."""


class RecordSearch:
    """Reads all partitions of ``topic``, without a consumer group, from the given time on. The connection is
    opened at the first query and kept. Queries run one after the other."""

    def __init__(self, settings: KafkaSettings, topic: TopicSpec) -> None:
        self._topic = topic
        self._one_at_a_time = asyncio.Lock()
        self._cursor = Cursor(client_options(settings), [topic.name])
        self._reached: dict[Place, int] = {}
        """The place of the present query on the log."""
        self._unfinished: OrderedDict[str, dict[Place, int]] = OrderedDict()
        """The places of queries that ran out of time, by key."""

    async def find(self, key: str, since: datetime) -> Envelope[Any] | None:
        """Return the first event with this record key that was logged at ``since`` or later. None: there is
        none that can be decoded, or it did not arrive in time. Raises TransientError: the broker is
        unavailable, there is too much to read for one query, or the topic does not exist. The same query then
        goes on where this one stopped."""
        deadline = asyncio.get_running_loop().time() + LONGEST_SECONDS
        try:
            async with asyncio.timeout_at(deadline):
                await self._one_at_a_time.acquire()
        except TimeoutError as error:
            raise TransientError(f"cannot read {self._topic.name} yet: earlier searches still run") from error
        try:
            async with asyncio.timeout_at(deadline):
                return await self._find(key, since)
        except (LogUnreadable, TimeoutError) as error:
            self._unfinished[key] = self._reached
            if len(self._unfinished) > MOST_UNFINISHED:
                self._unfinished.popitem(last=False)
            await self.close()
            raise TransientError(f"cannot read {self._topic.name}: {error!r}") from error
        finally:
            self._one_at_a_time.release()

    async def close(self) -> None:
        """Close the connection. The next query opens another."""
        await self._cursor.close()

    async def _find(self, key: str, since: datetime) -> Envelope[Any] | None:
        self._reached = self._unfinished.pop(key, {})
        await (self._cursor.look() if self._cursor.spans else self._cursor.open())
        begins = await self._cursor.offsets_at(since - SLACK)
        self._cursor.start_from({at: max(begin, self._reached.get(at, 0)) for at, begin in begins.items()})
        patience = PATIENCE_SECONDS if datetime.now(UTC) - since < RECENT else 0.0
        found = await self._scan(key.encode(), time.monotonic() + patience)
        self._cursor.rest()
        return found

    async def _scan(self, key: bytes, deadline: float) -> Envelope[Any] | None:
        while True:
            for record in await self._cursor.fetch(timeout_ms=100):
                if record.key == key and (event := decoded(record)):
                    return event
            self._reached = reached = await self._cursor.reached()
            at_end = all(reached[place] >= span.end for place, span in self._cursor.spans.items())
            if at_end and time.monotonic() > deadline:
                return None

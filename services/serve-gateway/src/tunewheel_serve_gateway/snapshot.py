"""The events by which a gateway serves, kept on its disk for a start while Kafka is away.

The file has one JSON object per line: first a header with the log's identity and the SHA-256 of the rest,
then the events.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import structlog
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.deadletter import Warn
from tunewheel_runtime.files import replace_file
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.waiting import end_all

from tunewheel_serve_gateway.catalog import Catalog

log = structlog.get_logger(__name__)
FORMAT = 1
SECONDS_BETWEEN = 1.0
"""Shortest time between two snapshots."""


@dataclass(frozen=True, slots=True)
class Found:
    catalog: Catalog
    written_at: str
    """ISO 8601."""


class Snapshot:
    """The file at ``path``. A snapshot of another log than that of ``settings`` is not used."""

    def __init__(self, path: Path, settings: KafkaSettings, warn: Warn = lambda _name, _text: None) -> None:
        self._path = path
        brokers = sorted(settings.bootstrap_servers.split(","))
        self._log = {"brokers": brokers, "topic_prefix": settings.topic_prefix}
        self._warn = warn
        self.changed = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    def start(self, catalog: Catalog) -> asyncio.Task[None]:
        """Begin to write ``catalog``: at once, after every ``changed``, and again after a failure."""
        self._following = self._following or asyncio.create_task(self._follow(catalog), name="snapshot")
        return self._following

    async def close(self, catalog: Catalog) -> None:
        """Stop, and write a change that was not written yet."""
        await end_all(self._following)
        if self._following is not None and self.changed.is_set():
            await self._try_to_write(catalog)

    async def _follow(self, catalog: Catalog) -> None:
        while True:
            await self._try_to_write(catalog)
            await asyncio.sleep(SECONDS_BETWEEN)
            await self.changed.wait()

    async def _try_to_write(self, catalog: Catalog) -> None:
        self.changed.clear()
        try:
            await asyncio.to_thread(self.write, catalog.events)
            self._warn("snapshot_not_written", None)
        except OSError as error:
            self.changed.set()
            self._warn(
                "snapshot_not_written",
                f"what Kafka said is not on the disk ({error.strerror}): if this gateway starts while Kafka "
                "is away, it serves by older decisions, or not at all; mend the work folder",
            )

    def write(self, events: Iterable[Envelope[Any]]) -> None:
        """Replace the file as one step. Raises OSError."""
        content = b"".join(orjson.dumps(_as_data(event)) + b"\n" for event in events)
        header = {
            "format": FORMAT,
            "log": self._log,
            "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._path, orjson.dumps(header) + b"\n" + content)

    def read(self) -> Found | None:
        """Return the snapshot; None where there is none that can be used. The process's log then says why."""
        try:
            first, _, content = self._path.read_bytes().partition(b"\n")
            header = orjson.loads(first)
            if (header["format"], header["log"]) != (FORMAT, self._log):
                raise ValueError("it is of another log or format")
            if header["sha256"] != hashlib.sha256(content).hexdigest():
                raise ValueError("its content does not have the hash in its header")
            catalog = Catalog()
            for event in _events_in(content.splitlines()):
                catalog.take(event)
            return Found(catalog, str(header["written_at"])) if catalog.events else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("snapshot_not_used", path=str(self._path), reason=str(error) or repr(error))
            return None


def _as_data(event: Envelope[Any]) -> dict[str, Any]:
    record = event.to_kafka()
    headers = {name: value.decode() for name, value in record.headers.items()}
    return {"topic": record.topic, "headers": headers, "value": record.value.decode()}


def _events_in(lines: Sequence[bytes]) -> Iterator[Envelope[Any]]:
    for line in lines:
        record = orjson.loads(line)
        headers = [(name, value.encode()) for name, value in record["headers"].items()]
        try:
            yield Envelope.from_kafka(BY_NAME[record["topic"]].event, record["value"].encode(), headers)
        except InvalidEvent as error:  # Another release may have written it.
            log.warning("snapshot_skipped_record", topic=record["topic"], reason=str(error))

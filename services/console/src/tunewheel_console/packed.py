"""The records of one project as they are on the log, compressed. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic_core import from_json, to_json
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.deadletter import Position, Undecoded

CHUNK = 200
"""How many records are compressed together."""
LEVEL = 1
"""zlib's fastest. Slower ones save a quarter of the bytes."""
_RANKS = {name: rank for rank, name in enumerate(BY_NAME)}


class Packed:
    """Records, a tenth of their size. ``data``: what ``to_bytes`` returned."""

    def __init__(self, data: bytes = b"", count: int = 0) -> None:
        self._chunks = [data] if data else []
        self._open: list[bytes] = []
        self.count = count

    def add(self, record: Undecoded) -> None:
        """Add a record.

        Raises:
            UnicodeDecodeError: the record holds other bytes than text, so it is no event.
        """
        at, headers = record.position, {name: value.decode() for name, value in record.headers.items()}
        value = record.value.decode() if record.value is not None else None
        fields = (at.topic, at.partition, at.offset, record.logged_ms, record.key_text, headers, value)
        self._open.append(to_json(fields))
        self.count += 1
        if len(self._open) == CHUNK:
            self._chunks.append(zlib.compress(b"\n".join(self._open), LEVEL))
            self._open.clear()

    def to_bytes(self) -> bytes:
        last = [zlib.compress(b"\n".join(self._open), LEVEL)] if self._open else []
        return b"".join([*self._chunks, *last])

    def __iter__(self) -> Iterator[Undecoded]:
        """Yield the records in the order in which they were added."""
        for chunk in self._chunks:
            while chunk:  # a file holds several chunks
                stream = zlib.decompressobj()
                yield from map(_unpacked, stream.decompress(chunk).split(b"\n"))
                chunk = stream.unused_data
        yield from map(_unpacked, self._open)


def in_log_order(records: Sequence[Undecoded]) -> list[Undecoded]:
    """Return records in the order in which ``LogReader`` merges topics: by their times, but within a
    partition as they are on the log."""
    stamps, keys = dict[tuple[str, int], int](), dict[Position, tuple[int, int, int, int]]()
    for record in sorted(records, key=lambda one: one.position.offset):
        at = record.position
        # Another process's clock may be behind.
        stamps[at.place] = max(stamps.get(at.place, 0), record.logged_ms or 0)
        keys[at] = stamps[at.place], _RANKS[at.topic], at.partition, at.offset
    return sorted(records, key=lambda one: keys[one.position])


def project_in(record: Undecoded) -> str | None:
    """Return the project that a record is about; None: the record says none."""
    if (name := record.headers.get("ce_project")) is not None:
        return name.decode("utf-8", "replace")
    topic = BY_NAME[record.position.topic]
    if topic.is_tombstone(record.value):
        return record.key_text
    try:
        found: Any = from_json(record.value or b"")
    except ValueError:
        return None
    name = found.get("project") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None


def _unpacked(line: bytes) -> Undecoded:
    topic, partition, offset, logged_ms, key, headers, value = from_json(line)
    return Undecoded(
        Position(topic, partition, offset),
        key.encode(),
        value.encode() if value is not None else None,
        {name: text.encode() for name, text in headers.items()},
        logged_ms,
    )

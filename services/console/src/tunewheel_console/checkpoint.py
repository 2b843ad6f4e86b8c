"""What the console keeps of the log in the object store, so that its start need not read the whole log.

It is a copy of what lies on topics that are kept for ever, so it holds no text that the log has lost. One
file holds the records of one project. The index names the files, says how far each partition was read, and
holds what lists say of each project. Without an index that can be used, the console reads the log from its
beginning.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from pydantic import ValidationError
from pydantic_core import from_json, to_json
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.fields import ArtifactRef, Frozen
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_console.state import Rest

log = structlog.get_logger(__name__)
FOLDER = "console/views/1"
"""The number is that of the format."""
INDEX = f"{FOLDER}/index.json"
UNUSED = timedelta(hours=1)
"""A file that no index names is deleted when it is so old: another console may just be about to name it."""
Begins = dict[str, int]
"""The first offset by partition, of partitions whose records are kept."""


class Kept(Frozen):
    """One project, the file with the project's records, and the number of these ``records``."""

    rest: Rest
    file: ArtifactRef
    records: int


class Index(Frozen):
    rules: str
    """The release that made the summaries, how it told commands from forgeries, and ``Rest``'s fields."""
    begins: Begins
    last: dict[str, tuple[int, str]]
    """By partition, of every topic: the offset and the event's id of the last record that was read."""
    refused: tuple[str, ...]
    """The ids of commands that were known to be dead letters."""
    projects: dict[str, Kept]


class Checkpoint:
    """Reads and writes the copy. Several consoles may write: each index names files of its own writer."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def read(self, begins: Begins) -> tuple[Index, dict[str, bytes]] | None:
        """Return the index, and the files by project. None: there is none that can be used, or the log does
        not begin at ``begins`` any more."""
        try:
            data = await self._store.read(INDEX)
            if data is None:
                return None
            index = Index.model_validate_json(data)
            if begins_elsewhere(index.begins, begins):
                log.info("checkpoint_of_another_log", why="the log begins elsewhere")
                return None
            files = await asyncio.gather(*(self._store.get(one.file) for one in index.projects.values()))
        except (ValidationError, ArtifactMissing, CorruptArtifact, TransientError) as error:
            log.warning("checkpoint_unusable", error=str(error))
            return None
        return index, dict(zip(index.projects, files, strict=True))

    async def write(self, index: Index, files: Mapping[str, bytes]) -> None:
        """Write ``files``, which are named by project, over damaged ones too, then the index. Files that it
        does not name are removed. Raises TransientError: the store is away; the earlier index counts on."""
        await asyncio.gather(*(self._store.replace(index.projects[n].file.path, d) for n, d in files.items()))
        await self._store.replace(INDEX, index.model_dump_json().encode())
        named = {INDEX, *(one.file.path for one in index.projects.values())}
        old = datetime.now(UTC) - UNUSED
        written = await self._store.written(FOLDER)
        await self._store.delete([path for path, at in written.items() if path not in named and at < old])

    async def paths(self) -> set[str]:
        """Return the files that are in the store. Raises ``TransientError``."""
        return {*await self._store.written(FOLDER)}

    async def remove(self) -> None:
        await self._store.delete([INDEX, *await self.paths()])


def file_of(data: bytes) -> ArtifactRef:
    sha256 = content_sha256(data)
    return ArtifactRef(path=f"{FOLDER}/{sha256}", sha256=sha256, size_bytes=len(data))


def begins_elsewhere(before: Begins, now: Begins) -> bool:
    """Return whether a partition begins at another offset than before. Partitions may have been added."""
    return any(now.get(name) != begin for name, begin in before.items())


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
        """Add a record. Raises UnicodeDecodeError: it holds other bytes than text, so it is no event."""
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

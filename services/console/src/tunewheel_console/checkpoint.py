"""What the console keeps of the log in the object store, so that its start need not read the whole log.

It is a copy of what lies on topics that are kept for ever, so it holds no text that the log has lost. One
file holds the records of one project. The index names the files, says how far each partition was read, and
holds what lists say of each project. Without an index that can be used, the console reads the log from its
beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import structlog
from pydantic import ValidationError
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.fields import ArtifactRef, Frozen
from tunewheel_contracts.identity import content_sha256
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
    """The release that made the summaries, and how it told commands from forgeries."""
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
        does not name are removed.

        Raises:
            TransientError: the store is away; the earlier index counts on.
        """
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
        """Remove everything. Raises ``TransientError``."""
        await self._store.delete([INDEX, *await self.paths()])


def file_of(data: bytes) -> ArtifactRef:
    sha256 = content_sha256(data)
    return ArtifactRef(path=f"{FOLDER}/{sha256}", sha256=sha256, size_bytes=len(data))


def begins_elsewhere(before: Begins, now: Begins) -> bool:
    """Return whether a partition begins at another offset than before. Partitions may have been added."""
    return any(now.get(name) != begin for name, begin in before.items())

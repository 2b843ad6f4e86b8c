"""Watches a folder: publishes new and changed documents, and can withdraw deleted ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_contracts.events.upstream import DocumentWithdrawn
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.topics import MAX_MESSAGE_BYTES
from tunewheel_runtime.files import replace_file

from tunewheel_cli.publishing.door import IngestDoor
from tunewheel_cli.publishing.folder import document_files, read_documents
from tunewheel_cli.publishing.items import Source, Summary
from tunewheel_cli.publishing.publish import Pump


class WatchForgotten(TunewheelError):
    """The last known contents of a watched folder cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The names of the documents of one folder that were published for one project. The log cannot tell them:
    its document ids do not name the folder, and others publish to the project too."""

    path: Path

    @classmethod
    def of(cls, below: Path, folder: Path, project: str) -> Self:
        """Return the record of that watch. Its file is in ``below``, a folder of one wheel."""
        return cls(below / f"{content_id('watch', [str(folder.resolve()), project])}.json")

    def read(self) -> frozenset[str]:
        """Return the names; an empty set if no watch ran before.

        Raises:
            WatchForgotten: the file exists but cannot be read.
        """
        try:
            return frozenset(json.loads(self.path.read_text("utf-8"))["documents"])
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise WatchForgotten(
                f"{self.path} cannot be read ({error}); delete it, and `tunewheel withdraw` what was "
                "deleted while nothing watched"
            ) from error

    def write(self, names: Collection[str]) -> None:
        """Replace the remembered names by ``names``, atomically.

        Raises:
            WatchForgotten: the file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, json.dumps({"documents": sorted(names)}, indent=1).encode())
        except OSError as error:
            raise WatchForgotten(
                f"{self.path} cannot be written ({error}); make room, or choose another folder with --var"
            ) from error


RETRY_MS = 5_000
Snapshot = dict[str, tuple[int, int]]
"""By path below the folder, the time of change (ns) and the size."""
EARLIER = (-1, -1)
"""The state of a known document that must be published again."""


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one scan of the folder."""

    summary: Summary
    gone: tuple[str, ...] = ()
    withdrawn: bool = False
    """Whether ``gone`` was withdrawn."""
    error: TransientError | None = None
    """Why nothing was published. It is tried again shortly."""


@dataclass(slots=True)
class FolderWatch:
    """Publishes a folder and then its changes through doors that ``open_door`` opens."""

    folder: Path
    project: str
    open_door: Callable[[], IngestDoor]
    withdraw_deleted: bool = False
    watched: Watched | None = None
    """The documents of the last watch. Those that are gone now count as deleted. None: nothing is
    remembered."""

    async def run(self, on_step: Callable[[Step], None], *, stop: asyncio.Event | None = None) -> None:
        """Publish the folder, then every change, until ``stop`` is set. While the door is away, it waits.

        Raises:
            WatchForgotten: the last known contents cannot be read or written.
        """
        from watchfiles import awatch

        seen: Snapshot = dict.fromkeys(self.watched.read(), EARLIER) if self.watched else {}
        seen = await self._step(seen, on_step)
        async for _ in awatch(
            self.folder, watch_filter=None, stop_event=stop, rust_timeout=RETRY_MS, yield_on_timeout=True
        ):
            seen = await self._step(seen, on_step)

    async def _step(self, seen: Snapshot, on_step: Callable[[Step], None]) -> Snapshot:
        now = await asyncio.to_thread(snapshot, self.folder)
        changed = sorted(name for name, state in now.items() if seen.get(name) != state)
        gone = tuple(sorted(seen.keys() - now.keys()))
        if not changed and not gone:
            return now
        summary = Summary(str(self.folder), total_bytes=sum(now[name][1] for name in changed))
        self._remember(seen.keys() | now.keys())  # before publishing, so that a crash forgets no document
        try:
            await self._publish(changed, summary)
            if gone and self.withdraw_deleted:
                await self._withdraw(gone, summary)
        except TransientError as error:
            on_step(Step(summary, error=error))
            return dict.fromkeys(now, EARLIER) | seen  # some may be on the log already
        self._remember(now.keys())
        on_step(Step(summary, gone, withdrawn=self.withdraw_deleted))
        return now

    def _remember(self, names: Collection[str]) -> None:
        if self.watched is not None:
            self.watched.write(names)

    async def _publish(self, names: list[str], summary: Summary) -> None:
        if not names:
            return
        files = [self.folder / name for name in names]
        found = read_documents(self.folder, files, max_bytes=MAX_MESSAGE_BYTES, on_bytes=summary.count)
        async with self.open_door() as door:
            await Pump(door, summary, self.project).run(Source(found))

    async def _withdraw(self, names: tuple[str, ...], summary: Summary) -> None:
        await self.open_door().withdraw(self.project, names, "its file was deleted")
        summary.published[DocumentWithdrawn.type] += len(names)


def snapshot(folder: Path) -> Snapshot:
    """Return the state of every document below ``folder``."""
    states: Snapshot = {}
    for path in document_files(folder):
        try:
            stat = path.stat()
        except OSError:
            continue  # deleted after it was listed, or a broken link
        states[path.relative_to(folder).as_posix()] = (stat.st_mtime_ns, stat.st_size)
    return states

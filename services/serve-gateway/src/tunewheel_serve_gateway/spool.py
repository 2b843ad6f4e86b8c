"""Completions on disk, from before their client has the whole answer until the broker has them.

A file per process, JSON Lines, locked by its writer: whoever starts takes over the files that nobody holds.
A line is handed to the operating system before the answer ends, and no disk is waited for (no fsync): it
survives ``kill -9`` of the process, not the loss of the machine's power. Half a line at the end of a file is
a completion that was not answered yet.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.formats.serving import RouteRole

from tunewheel_serve_gateway.exchange import Exchange

log = structlog.get_logger(__name__)
SEGMENT_BYTES = 4 << 20
"""A file that has grown past this is followed by another; each goes when the broker has all of it."""


class UnusableSpool(TunewheelError):
    """The spool's folder cannot be written to; the message names the setting."""


@dataclass(slots=True, eq=False)
class Segment:
    """One file, open and locked. ``waiting``: completions in it that the broker does not have yet."""

    path: Path
    descriptor: int
    size: int = 0
    waiting: int = 0


class Spool:
    """What the completion log holds, on disk. Not for several threads at once."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._current: Segment | None = None
        self._segments: set[Segment] = set()
        self._told = False

    @property
    def size_bytes(self) -> int:
        return sum(segment.size for segment in self._segments)

    def take_over(self) -> list[tuple[Exchange, Segment]]:
        """Return what processes that are gone left behind, oldest first; each is to be acknowledged.

        Raises:
            UnusableSpool
        """
        try:
            self._begin()
            left = [s for path in self._directory.glob("*.jsonl") if (s := self._adopt(path)) is not None]
        except OSError as error:
            raise UnusableSpool(
                f"completions cannot be kept in {self._directory} ({error}); name a folder that can be "
                "written to in TUNEWHEEL_WORK_DIR"
            ) from error
        found = [(exchange, segment) for segment in left for exchange in _read(segment)]
        for _, segment in found:
            segment.waiting += 1
        for segment in left:
            self._drop_if_done(segment)
        return sorted(found, key=lambda pair: pair[0].completed_at)

    def append(self, exchange: Exchange) -> Segment | None:
        """Keep ``exchange`` until it is acknowledged; None where the disk does not take it."""
        try:
            if self._current is None or self._current.size >= self._segment_bytes:
                self._begin()
            assert self._current is not None
            self._current.size += _write(self._current.descriptor, orjson.dumps(exchange) + b"\n")
        except (OSError, orjson.JSONEncodeError) as error:
            self._give_up(error)
            return None
        self._current.waiting += 1
        self._told = False
        return self._current

    def acknowledge(self, segment: Segment | None) -> None:
        """The broker has one more of the completions in ``segment``."""
        if segment is None:
            return
        segment.waiting -= 1
        self._drop_if_done(segment)

    def begin_anew(self) -> None:
        """Write the completions from here on to a new file. The old file is deleted once the broker has all
        of its completions; under steady traffic a file that still grows would never get there."""
        if self._current is not None and self._current.size:
            try:
                self._begin()
            except OSError as error:
                self._give_up(error)

    def holds_earlier(self) -> bool:
        """Tell whether there are files from before the one that is written to."""
        return any(segment is not self._current for segment in self._segments)

    def close(self) -> None:
        """Let go of the files; what is not acknowledged stays for the next process."""
        self._current = None
        for segment in list(self._segments):
            self._drop_if_done(segment)
        for segment in self._segments:
            os.close(segment.descriptor)
        self._segments.clear()

    def _begin(self) -> None:
        """Start another file. It is locked before it has the name that others look for."""
        before, self._current = self._current, None
        if before is not None:
            self._drop_if_done(before)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / f"{uuid.uuid4().hex}.jsonl"
        unnamed = path.with_suffix(".new")
        descriptor = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.rename(unnamed, path)
        except OSError:
            os.close(descriptor)
            unnamed.unlink(missing_ok=True)
            raise
        self._current = Segment(path, descriptor)
        self._segments.add(self._current)

    def _adopt(self, path: Path) -> Segment | None:
        """Lock a file that nobody holds; None where somebody does, or did until it went."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        stat = os.fstat(descriptor)
        if not stat.st_nlink:
            os.close(descriptor)
            return None
        segment = Segment(path, descriptor, size=stat.st_size)
        self._segments.add(segment)
        return segment

    def _drop_if_done(self, segment: Segment) -> None:
        """Empty or delete a file of which the broker has all. A file that stays is published once more, under
        the same event ids."""
        if segment.waiting:
            return
        if segment is self._current:
            try:
                os.ftruncate(segment.descriptor, 0)
            except OSError:
                self._current = None  # its descriptor is closed below and may be another file's next
            else:
                segment.size = 0
                return
        self._segments.discard(segment)
        with contextlib.suppress(OSError):
            segment.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(segment.descriptor)

    def _give_up(self, error: Exception) -> None:
        """Begin anew with the next completion: the file may end in half a line."""
        if self._current is not None and isinstance(error, OSError):
            done, self._current = self._current, None
            self._drop_if_done(done)
        if not self._told:
            log.error("completions_not_on_disk", directory=str(self._directory), error=str(error))
            self._told = True


def _write(descriptor: int, line: bytes) -> int:
    """Write all of ``line``; returns its length."""
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return len(line)


def _read(segment: Segment) -> list[Exchange]:
    found: list[Exchange] = []
    for number, line in enumerate(segment.path.read_bytes().split(b"\n"), start=1):
        if not line:
            continue
        try:
            found.append(_exchange(orjson.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            log.warning("spool_line_unreadable", file=segment.path.name, line=number, error=str(error))
    return found


def _exchange(values: dict[str, Any]) -> Exchange:
    messages = tuple((str(role), str(content)) for role, content in values["messages"])
    return Exchange(**(values | {"role": RouteRole(values["role"]), "messages": messages}))

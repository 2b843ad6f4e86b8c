"""The queue of completions on the disk.

A process appends to its own folder, and publishes from it and from the folders that it took over
(``folders``). A folder holds segments, which are files of frames (see ``kept``). Appended frames are written
without fsync: they survive ``kill -9`` of the process, but not a loss of the machine's power. An incomplete
frame, or one with a wrong checksum, ends its segment.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from tunewheel_contracts.errors import TunewheelError

from tunewheel_serve_gateway.completions.folders import Folders
from tunewheel_serve_gateway.completions.kept import FRAME, Kept, kept_of, whole_frames

log = structlog.get_logger(__name__)
SEGMENT_BYTES = 4 << 20
"""Size from which on the next segment is begun. A segment is deleted when the broker has all of it."""
READ_BYTES = 4 << 20
"""Approximate limit of bytes read at once. At least one completion is read, however large it is."""
SUFFIX = ".segment"


class UnusableSpool(TunewheelError):
    """The spool's folder cannot be written to; the message names the setting."""


@dataclass(slots=True, eq=False)
class Segment:
    """One file of frames. ``size``: bytes of whole frames. ``done``: bytes, from the start, that the broker
    has."""

    path: Path
    number: int
    size: int = 0
    done: int = 0
    count: int = 0
    """Number of completions in the segment that the broker does not have."""


@dataclass(slots=True)
class Head:
    """Completions read from the head of the queue and not acknowledged yet."""

    kept: list[Kept] = field(default_factory=list[Kept])
    reached: list[tuple[Segment, int, int]] = field(default_factory=list[tuple[Segment, int, int]])
    """For each segment that was read: the segment, the position after the last frame, the number of
    frames."""


class Spool:
    """The queue. Several threads may append; one thread reads and acknowledges."""

    def __init__(
        self, directory: Path, *, limit_bytes: int = 1 << 30, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._segment_bytes = segment_bytes
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self._segments: list[Segment] = []
        self._current: Segment | None = None
        self._descriptor = -1
        """File descriptor of the current segment."""
        self._folders = Folders(directory)
        self._marked = -1
        self._adopting = threading.Lock()
        """Held while folders are taken over. Always acquired before ``_lock``."""
        self._scanning: tuple[Path, ...] = ()
        """Folders that were taken over and whose segments are not in the queue yet."""
        self._closed = False
        self.refuses = False
        """Whether the latest completions were refused: the limit is reached, or the disk cannot be
        written."""

    # The event loop reads these two without the lock: a thread may hold the lock while the disk hangs.

    @property
    def size_bytes(self) -> int:
        return sum(segment.size for segment in tuple(self._segments))

    @property
    def count(self) -> int:
        """Completions that wait for the broker."""
        return sum(segment.count for segment in tuple(self._segments))

    def take_over(self) -> int:
        """Start the queue. Completions that ended processes left behind come first; return their number.

        Raises:
            UnusableSpool
        """
        try:
            left = self.adopt()
            with self._lock:
                self._folders.begin()
                self._begin()
        except OSError as error:
            raise UnusableSpool(
                f"completions cannot be kept in {self._directory} ({error}); name a folder that can be "
                "written to in TUNEWHEEL_WORK_DIR"
            ) from error
        return left

    def adopt(self) -> int:
        """Put the completions that ended processes left behind at the head of the queue; return their number.
        Appending is not blocked while the files are read.

        Raises:
            OSError: a file cannot be read; then nothing was taken over.
        """
        with self._adopting:
            with self._lock:
                self._scanning = () if self._closed else tuple(self._folders.adopt())
            try:
                found = [path for one in self._scanning for path in one.glob(f"*{SUFFIX}")]
                left = [s for path in sorted(found, key=lambda p: p.name) if (s := self._scan(path))]
            except OSError:
                with self._lock:
                    if not self._closed:
                        self._folders.release(self._scanning)
                    self._scanning = ()
                raise
            with self._lock:
                self._scanning = ()
                if self._closed:
                    return 0
                self._segments[:0] = left
                self._folders.let_go(keep=self._in_use())
            return sum(segment.count for segment in left)

    def _in_use(self) -> set[Path]:
        """Return the folders that hold a segment, or that are being read."""
        return {segment.path.parent for segment in self._segments} | set(self._scanning)

    def append(self, frames: Sequence[bytes]) -> int:
        """Write ``frames``; return how many of them, counted from the first, were written. The rest is
        refused."""
        with self._lock:
            room = self._limit_bytes - self.size_bytes
            ends = itertools.accumulate(len(frame) for frame in frames)
            fit = sum(end <= room for end in ends)
            if fit < len(frames):
                self._refuse(
                    f"they take {self.size_bytes} bytes, and TUNEWHEEL_COMPLETION_LOG_BYTES allows no more"
                )
            if not fit:
                return 0
            try:
                if self._current is None or self._current.size >= self._segment_bytes:
                    self._begin()
                assert self._current is not None
                self._current.size += _write(self._descriptor, b"".join(frames[:fit]))
            except OSError as error:
                self._refuse(str(error))
                self._cut()
                return 0
            self._current.count += fit
            if fit == len(frames) and self.refuses:
                self.refuses = False
                log.info("completions_kept_again", directory=str(self._directory))
            return fit

    def read(self, most: int) -> Head:
        """Return up to ``most`` completions from the head of the queue."""
        with self._lock:
            spans = [(s, s.done, s.size) for s in self._segments if s.size > s.done]
        head, room = Head(), READ_BYTES
        for segment, done, size in spans:
            payloads = _payloads(segment.path, done, size, room)
            if not payloads:
                self._give_up(segment, done, head)
                continue
            payloads = payloads[: most - len(head.kept)]
            end = payloads[-1][0]
            head.kept += [one for _, payload in payloads if (one := _read(payload, segment)) is not None]
            head.reached.append((segment, end, len(payloads)))
            room -= end - done
            if end < size or room <= 0 or len(head.kept) >= most:
                break
        return head

    def acknowledge(self, head: Head) -> None:
        """Remove the completions in ``head`` from the queue: the broker has them."""
        with self._lock:
            for segment, end, count in head.reached:
                segment.done = end
                segment.count -= count
                self._drop_if_done(segment)
            self._folders.let_go(keep=self._in_use())

    def mark(self) -> int:
        """Set a mark behind the completions on the disk; see ``holds_marked``. Later completions go to
        another segment. Folders of ended processes are taken over first and lie before the mark; return how
        many completions they held.

        Raises:
            OSError: such a folder cannot be read; no mark is set.
        """
        left = self.adopt()
        with self._lock:
            self._marked = max((s.number for s in self._segments if s.size), default=-1)
            if self._current is not None and self._current.number <= self._marked:
                with contextlib.suppress(OSError):  # ``append`` tries again and reports the error.
                    self._begin()
        return left

    def holds_marked(self) -> bool:
        """Return whether the disk holds completions from before the latest ``mark``."""
        return any(segment.size and segment.number <= self._marked for segment in tuple(self._segments))

    def close(self) -> None:
        """Close the files. Completions that are not acknowledged stay on the disk for the next process."""
        with self._lock:
            if self._current is not None:
                done, self._current = self._current, None
                os.close(self._descriptor)
                self._drop_if_done(done)
            self._closed = True
            self._folders.close(keep=self._in_use())
            self._segments.clear()

    def _scan(self, path: Path) -> Segment | None:
        """Count the whole frames of a segment that was taken over, and cut off an incomplete end."""
        data = path.read_bytes()
        segment = Segment(path, next(self._numbers))
        for segment.size, _ in whole_frames(data):
            segment.count += 1
        if segment.size < len(data):
            log.warning("spool_cut", file=path.name, kept=segment.count, bytes_cut=len(data) - segment.size)
            os.truncate(path, segment.size)
        if segment.count:
            return segment
        path.unlink(missing_ok=True)
        return None

    def _begin(self) -> None:
        """Create the next segment and append to it from now on."""
        assert self._folders.own is not None
        number = next(self._numbers)
        path = self._folders.own / f"{time.time_ns():020d}-{number:08d}{SUFFIX}"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._end_current()
        self._descriptor = descriptor
        self._current = Segment(path, number)
        self._segments.append(self._current)

    def _end_current(self) -> None:
        if self._current is not None:
            done, self._current = self._current, None
            os.close(self._descriptor)
            self._drop_if_done(done)

    def _drop_if_done(self, segment: Segment) -> None:
        """Empty or delete a segment if the broker has all of it. If the file cannot be deleted, the next
        process publishes it again, under the same event ids."""
        if segment.done < segment.size:
            return
        if segment is self._current:
            if not segment.size:
                return
            try:
                os.ftruncate(self._descriptor, 0)
            except OSError:
                self._end_current()
            else:
                segment.size = segment.done = 0
            return
        with contextlib.suppress(ValueError):
            self._segments.remove(segment)
        with contextlib.suppress(OSError):
            segment.path.unlink(missing_ok=True)

    def _cut(self) -> None:
        """Cut off what a failed write left in the current segment. Where that fails too, end the segment."""
        if self._current is None:
            return
        try:
            os.ftruncate(self._descriptor, self._current.size)
        except OSError:
            self._end_current()

    def _give_up(self, segment: Segment, done: int, head: Head) -> None:
        """Skip the rest of a segment that cannot be read."""
        log.error("completions_unreadable", file=str(segment.path), lost=segment.count)
        head.reached.append((segment, max(segment.size, done), segment.count))

    def _refuse(self, reason: str) -> None:
        if not self.refuses:
            log.error("completions_not_kept", directory=str(self._directory), reason=reason)
            self.refuses = True


def _write(descriptor: int, data: bytes) -> int:
    """Write all of ``data``; returns its length."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return len(data)


def _payloads(path: Path, start: int, end: int, room: int) -> list[tuple[int, bytes]]:
    """Return the payloads of the whole frames between two positions, each with the position after it. At most
    ``room`` bytes are read, or the first frame where it is larger. The list is empty where the file cannot be
    read."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(min(end - start, room))
            if len(data) >= FRAME.size and (first := FRAME.size + FRAME.unpack_from(data)[0]) > len(data):
                data += file.read(min(first, end - start) - len(data))
    except OSError as error:
        log.error("completions_unreadable", file=str(path), error=str(error))
        return []
    return [(start + place, payload) for place, payload in whole_frames(data)]


def _read(payload: bytes, segment: Segment) -> Kept | None:
    try:
        return kept_of(payload)
    except ValueError as error:
        log.error("completion_unreadable", file=segment.path.name, error=str(error))
        return None

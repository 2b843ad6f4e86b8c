"""The queue of completions on the disk.

A process appends to its own folder, and publishes from it and from the folders that it took over
(``folders``). A folder holds segments, which are files of frames (see ``kept``). Appended frames are written
without fsync: they survive ``kill -9`` of the process, but not a loss of the machine's power.

A file is deleted once the broker has its completions, and for no other reason. A file that cannot be opened,
read or deleted for a moment is tried again. Damaged frames are counted as lost, the others are delivered, and
the file is set aside.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
from tunewheel_contracts.errors import TunewheelError

from tunewheel_serve_gateway.completions.folders import Folders
from tunewheel_serve_gateway.completions.kept import DAMAGED, SUFFIX, Head, Segment, scan, write

log = structlog.get_logger(__name__)
SEGMENT_BYTES = 4 << 20
"""Size from which on the next segment is begun. A segment is deleted when the broker has all of it."""
READ_BYTES = 4 << 20
"""Approximate limit of bytes read at once. At least one completion is read, however large it is."""


class UnusableSpool(TunewheelError):
    """The spool's folder cannot be written to; the message names the setting."""


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
        self._marked: int | None = -1
        """Highest number of the segments before the latest mark; None where that mark could not be set."""
        self._adopting = threading.Lock()
        """Held while folders are taken over. Always acquired before ``_lock``."""
        self._scanning = set[Path]()
        """Folders that were taken over and of which segments may not be in the queue yet."""
        self.unread: OSError | None = None
        """Why files of ended processes were not taken over; ``adopt`` tries again."""
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
        Raises UnusableSpool."""
        try:
            with self._lock:
                self._folders.begin()
                self._begin()
        except OSError as error:
            raise UnusableSpool(
                f"completions cannot be kept in {self._directory} ({error}); name a folder that can be "
                "written to in TUNEWHEEL_WORK_DIR"
            ) from error
        return self.adopt()

    def adopt(self) -> int:
        """Put the completions that ended processes left behind at the head of the queue; return their number.
        Files that cannot be read are left for the next call, and ``unread`` is set. Appending is not blocked
        while the files are read."""
        left: list[Segment] = []
        failed: list[OSError] = []
        with self._adopting:
            with self._lock:
                if not self._closed:
                    self._scanning |= set(self._folders.adopt(failed))
                queued = {segment.path for segment in self._segments}
            again: set[Path] = set()
            for folder in self._scanning:
                try:
                    found = [folder / name for name in os.listdir(folder) if name.endswith(SUFFIX)]
                    left += [scan(path, next(self._numbers)) for path in found if path not in queued]
                except OSError as error:
                    failed.append(error)
                    again.add(folder)
            with self._lock:
                self._scanning, self.unread = again, next(iter(failed), None)
                if self._closed:
                    return 0
                self._segments[:0] = sorted(left, key=lambda segment: segment.path.name)
                self._sweep()
        return sum(segment.count for segment in left)

    def _in_use(self) -> set[Path]:
        """Return the folders that hold a segment, or that are being read."""
        return {segment.path.parent for segment in self._segments} | self._scanning

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
                self._begin_if_full()
                assert self._current is not None
                self._current.size += write(self._descriptor, b"".join(frames[:fit]))
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
        """Return up to ``most`` completions from the head of the queue. Segments that cannot be read are
        passed over."""
        with self._lock:
            spans = [(s, s.done, s.size, s.count) for s in self._segments if s.size > s.done]
        head, room = Head(), READ_BYTES
        for segment, done, size, count in spans:
            try:
                end = head.take(segment, done, size, count, most, room)
            except OSError as error:
                head.error = error
                continue
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
            self._sweep()

    def mark(self) -> int:
        """Set a mark behind the completions on the disk; see ``holds_marked``. Later completions go to
        another segment. Folders of ended processes are taken over first and lie before the mark; return how
        many completions they held. No mark is set where such a folder cannot be read. Files that were set
        aside are deleted, because nobody can tell whose data they hold."""
        left = self.adopt()
        with self._lock:
            self._marked = max((s.number for s in self._segments if s.size), default=-1)
            if self._current is not None and self._current.number <= self._marked:
                with contextlib.suppress(OSError):  # ``append`` tries again and reports the error.
                    self._begin()
            try:
                for name in os.listdir(self._directory):
                    if name.endswith(DAMAGED):
                        (self._directory / name).unlink(missing_ok=True)
            except OSError as error:
                self.unread = self.unread or error
            if self.unread is not None:
                self._marked = None
        return left

    @property
    def is_marked(self) -> bool:
        """Whether the latest mark could be set."""
        return self._marked is not None

    def holds_marked(self) -> bool:
        """Return whether the disk may hold completions from before the latest ``mark``."""
        marked = self._marked
        return marked is None or any(s.size and s.number <= marked for s in tuple(self._segments))

    def close(self) -> None:
        """Close the files. Completions that are not acknowledged stay on the disk for the next process."""
        with self._lock:
            self._end_current()
            self._closed = True
            self._sweep()
            self._folders.close(keep=self._in_use())
            self._segments.clear()

    def _begin_if_full(self) -> None:
        """Begin the first or the next segment, where it is due. Without a free descriptor the present one
        grows. Raises OSError: there is no segment to write to."""
        if self._current is not None and self._current.size < self._segment_bytes:
            return
        try:
            self._begin()
        except OSError:
            if self._current is None:
                raise

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
            self._current = None
            with contextlib.suppress(OSError):
                os.close(self._descriptor)

    def _sweep(self) -> None:
        """Delete the segments of which the broker has all, and the folders that are empty then. A file that
        cannot be deleted is tried again with the next call."""
        for segment in [s for s in self._segments if s.done >= s.size and (s.size or s is not self._current)]:
            if segment is self._current:
                if not segment.is_damaged and self._empty_current():
                    continue
                self._end_current()
            try:
                # An erasure waits until the segments before its mark are gone, so these are not set aside.
                if segment.is_damaged and not (self._marked is not None and segment.number <= self._marked):
                    segment.path.rename(self._directory / f"{segment.path.stem}{DAMAGED}")
                else:
                    segment.path.unlink()
            except FileNotFoundError:
                pass
            except OSError as error:
                log.warning("completions_not_deleted", file=str(segment.path), error=str(error))
                continue
            self._segments.remove(segment)
        self._folders.let_go(keep=self._in_use())

    def _empty_current(self) -> bool:
        """Empty the current segment, of which the broker has all; return whether that was possible."""
        assert self._current is not None
        try:
            os.ftruncate(self._descriptor, 0)
        except OSError:
            return False
        self._current.size = self._current.done = 0
        return True

    def _cut(self) -> None:
        """Cut off what a failed write left in the current segment. Where that fails too, end the segment."""
        if self._current is None:
            return
        try:
            os.ftruncate(self._descriptor, self._current.size)
        except OSError:
            self._end_current()

    def _refuse(self, reason: str) -> None:
        if not self.refuses:
            log.error("completions_not_kept", directory=str(self._directory), reason=reason)
            self.refuses = True

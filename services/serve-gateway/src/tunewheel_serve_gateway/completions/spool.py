"""The queue of completions: files on disk, appended to at one end and published from the other.

Each process has a folder of its own, and those that it took over (``folders``). Segments are files of frames
(see ``kept``). What is appended was handed to the operating system, and no disk is waited for (no fsync): it
survives ``kill -9`` of the process, not the loss of the machine's power. A frame that is not whole, or has
another checksum, ends its segment.
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
"""A segment that has grown past this is followed by another; each goes when the broker has all of it."""
READ_BYTES = 4 << 20
"""Of the queue that are in memory at once, about: one completion is read however large it is."""
SUFFIX = ".segment"


class UnusableSpool(TunewheelError):
    """The spool's folder cannot be written to; the message names the setting."""


@dataclass(slots=True, eq=False)
class Segment:
    """``size``: bytes of whole frames; ``done``: bytes at the beginning that the broker has."""

    path: Path
    number: int
    size: int = 0
    done: int = 0
    count: int = 0
    """Completions in it that the broker does not have."""


@dataclass(slots=True)
class Head:
    """What was read from the queue's head, until it is acknowledged."""

    kept: list[Kept] = field(default_factory=list[Kept])
    reached: list[tuple[Segment, int, int]] = field(default_factory=list[tuple[Segment, int, int]])
    """Segment, the position after what was read, and how many frames that were."""


class Spool:
    """May be used by several threads: some append, one reads and acknowledges."""

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
        """Of the current segment."""
        self._folders = Folders(directory)
        self._marked = -1
        self._adopting = threading.Lock()
        """Of whoever looks for what others left behind: taken before the other lock."""
        self._scanning: tuple[Path, ...] = ()
        """Folders that are held, and of which no segment is in the queue yet."""
        self._closed = False
        self.refuses = False
        """The newest completions were not taken: the limit is reached, or the disk takes nothing."""

    # A disk that hangs holds the lock: what the event loop asks for does without.

    @property
    def size_bytes(self) -> int:
        return sum(segment.size for segment in tuple(self._segments))

    @property
    def count(self) -> int:
        """Completions that wait for the broker."""
        return sum(segment.count for segment in tuple(self._segments))

    def take_over(self) -> int:
        """Begin, with what processes that are gone left behind at the head; return how much that is.

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
        """Put what processes that are gone left behind at the head; return how many completions that is.
        Nobody who appends waits while it is read.

        Raises:
            OSError: nothing was taken over.
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
        """Return the folders in which something lies, or is looked for."""
        return {segment.path.parent for segment in self._segments} | set(self._scanning)

    def append(self, frames: Sequence[bytes]) -> int:
        """Hand ``frames`` to the operating system by one write; return how many of them, from the first, it
        has. The rest is refused."""
        with self._lock:
            room = self._limit_bytes - self.size_bytes
            ends = itertools.accumulate(len(frame) for frame in frames)
            fit = sum(end <= room for end in ends)
            if fit < len(frames):
                self._refuse(
                    f"they take {self.size_bytes} bytes and TUNEWHEEL_COMPLETION_LOG_BYTES is reached"
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
        """Return what is at the head of the queue and not acknowledged: at most so many completions."""
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
        """The broker has what was read; segments of which it has all go."""
        with self._lock:
            for segment, end, count in head.reached:
                segment.done = end
                segment.count -= count
                self._drop_if_done(segment)
            self._folders.let_go(keep=self._in_use())

    def mark(self) -> int:
        """Write what comes from here on to another segment; see ``holds_marked``. What processes left
        behind that are gone counts as of before: return how many completions of it were taken over.

        Raises:
            OSError: it is not known what lies there; nothing is marked.
        """
        left = self.adopt()
        with self._lock:
            self._marked = max((s.number for s in self._segments if s.size), default=-1)
            if self._current is not None and self._current.number <= self._marked:
                with contextlib.suppress(OSError):  # told with the next completion
                    self._begin()
        return left

    def holds_marked(self) -> bool:
        """Tell whether something is on the disk from before the latest ``mark``."""
        return any(segment.size and segment.number <= self._marked for segment in tuple(self._segments))

    def close(self) -> None:
        """Let go of the files; what is not acknowledged stays for the next process."""
        with self._lock:
            if self._current is not None:
                done, self._current = self._current, None
                os.close(self._descriptor)
                self._drop_if_done(done)
            self._closed = True
            self._folders.close(keep=self._in_use())
            self._segments.clear()

    def _scan(self, path: Path) -> Segment | None:
        """Count what is whole in a segment that was taken over, and cut what is not."""
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
        """Go on in another segment."""
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
        """Empty or delete a segment of which the broker has all. One that stays is published once more, under
        the same event ids."""
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
        """Take back what was written of refused completions; where that is not possible, begin anew."""
        if self._current is None:
            return
        try:
            os.ftruncate(self._descriptor, self._current.size)
        except OSError:
            self._end_current()

    def _give_up(self, segment: Segment, done: int, head: Head) -> None:
        """Leave out the rest of a segment that cannot be read any more."""
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
    """Return the payloads of the whole frames between two positions, with the position after each: for
    ``room`` bytes, or the first alone where it is larger. None where they cannot be read."""
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

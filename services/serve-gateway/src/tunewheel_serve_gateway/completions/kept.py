"""One completion as it is kept on the disk, and in memory for feedback: its Kafka record in a frame.
Segments are files of frames.

A frame is the payload's length, the payload's CRC-32 (RFC 1952) and the payload. The payload is the length of
the head, the head and the record's value. The head is JSON: the fields by which erasures select completions,
and the record's key and headers. Numbers are unsigned, four bytes, little-endian.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import structlog
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, KafkaRecord
from tunewheel_contracts.events.production import InferenceCompleted

log = structlog.get_logger(__name__)
FRAME = struct.Struct("<II")
_HEAD = struct.Struct("<I")
OVERHEAD_BYTES = 1024
"""Estimated memory of a completion beside its value: its objects, key and headers."""


SUFFIX, DAMAGED = ".segment", ".damaged"
"""Names of segments, and of the segments with damaged frames that were set aside."""


@dataclass(frozen=True, slots=True)
class Kept:
    project: str
    customer: str | None
    completion_id: str
    about: str
    """The completion id that an erasure may name. For a shadow copy it is the id of the copied completion,
    for a withheld answer that of the answer which the client got."""
    completed_at: float
    """Unix seconds."""
    record: KafkaRecord

    @property
    def size_bytes(self) -> int:
        """Estimated memory in bytes."""
        return OVERHEAD_BYTES + len(self.record.value)

    def data(self) -> InferenceCompleted:
        return InferenceCompleted.model_validate_json(self.record.value)

    def frame(self) -> bytes:
        """Return the frame that is written to the disk."""
        headers = {name: value.decode() for name, value in self.record.headers.items()}
        values = [self.project, self.customer, self.completion_id, self.about, self.completed_at, headers]
        head = orjson.dumps([*values, self.record.key.decode()])
        payload = b"".join((_HEAD.pack(len(head)), head, self.record.value))
        return FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def kept_as(event: Envelope[InferenceCompleted]) -> Kept:
    """Return the completion of ``event``, which was read from the log, in the form that is kept."""
    data, record = event.data, event.to_kafka()
    return Kept(
        project=data.project,
        customer=data.customer,
        completion_id=data.completion_id,
        about=data.shadow_of or data.answered_by or data.completion_id,
        completed_at=data.completed_at.timestamp(),
        record=record,
    )


def read_frames(data: bytes, *, is_end: bool = True) -> Iterator[tuple[int, bytes | None]]:
    """Yield the payload of every frame in ``data``, with the position after the frame. The payload is None
    where the bytes are damaged; reading goes on at the next whole frame.

    An incomplete last frame, or zeros, are not yielded: a process that was killed while it wrote, or a crash
    of the machine, leaves such an end. ``is_end``: no frame goes on after ``data``.
    """
    place = 0
    while (begin := place + FRAME.size) <= len(data):
        length, crc = FRAME.unpack_from(data, place)
        end = begin + length
        payload = data[begin:end]
        if not length or len(payload) < length or zlib.crc32(payload) != crc:
            following = _next_frame(data, place + 1)
            until = len(data) if following is None else following
            if following is None and not is_end:
                return
            if begin < until and zlib.crc32(memoryview(data)[begin:until]) == crc:
                end, payload = until, data[begin:until]  # Only the length is wrong.
            elif following is None and (end > until or not any(data[place:])):
                return
            else:
                end, payload = (end if length and end <= until else until), None
        yield end, payload
        place = end


def _next_frame(data: bytes, start: int) -> int | None:
    """Return the position of the first whole frame at ``start`` or later. Heads begin with ``["``. A text in
    a payload is never taken for a frame: its bytes, read as a length, are more than ``data`` has."""
    before = FRAME.size + _HEAD.size
    found = data.find(b'["', start + before)
    while found >= 0:
        begin = found - _HEAD.size
        length, crc = FRAME.unpack_from(data, found - before)
        if length and begin + length <= len(data) and zlib.crc32(data[begin : begin + length]) == crc:
            return found - before
        found = data.find(b'["', found + 1)
    return None


def kept_of(payload: bytes) -> Kept:
    """Read the payload of a frame. Raises ValueError: ``payload`` was not written by ``Kept.frame``."""
    try:
        (length,) = _HEAD.unpack_from(payload)
        values: list[Any] = orjson.loads(payload[_HEAD.size : _HEAD.size + length])
        project, customer, completion_id, about, completed_at, headers, key = values
        record = KafkaRecord(
            topic=topics.INFERENCE_COMPLETED.name,
            key=key.encode(),
            value=payload[_HEAD.size + length :],
            headers={name: value.encode() for name, value in headers.items()},
        )
    except (struct.error, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"not a completion: {error}") from error
    return Kept(project, customer, completion_id, about, completed_at, record)


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
    is_damaged: bool = False


@dataclass(slots=True)
class Head:
    """Completions read from the head of the queue and not acknowledged yet."""

    kept: list[Kept] = field(default_factory=list[Kept])
    reached: list[tuple[Segment, int, int]] = field(default_factory=list[tuple[Segment, int, int]])
    """For each segment that was read: the segment, the position after the last frame, the number of
    frames."""
    lost: int = 0
    """Number of frames that are damaged."""
    error: OSError | None = None
    """Why a segment could not be read. It stays in the queue."""

    def take(self, segment: Segment, done: int, size: int, count: int, most: int, room: int) -> int:
        """Take over completions of ``segment`` from its position ``done`` on, until there are ``most``;
        return the position after them. ``size`` and ``count``: of the segment. ``room``: see ``_frames``.
        Raises OSError."""
        try:
            frames, is_end = _frames(segment.path, done, size, room)
        except FileNotFoundError:
            frames, is_end = [], True
        taken = frames[: most - len(self.kept)]
        found = [one for _, payload in taken if (one := _kept(payload)) is not None]
        is_end = is_end and len(taken) == len(frames)
        end, passed = (size, count) if is_end else (taken[-1][0], len(taken))
        if lost := passed - len(found):
            log.error("completions_damaged", file=str(segment.path), lost=lost)
            segment.is_damaged = True
        self.lost += lost
        self.kept += found
        self.reached.append((segment, end, passed))
        return end


def scan(path: Path, number: int) -> Segment:
    """Return the segment of a file that was taken over. An incomplete end is left out. Raises OSError."""
    data = path.read_bytes()
    segment = Segment(path, number)
    for segment.size, _ in read_frames(data):
        segment.count += 1
    if segment.size < len(data):
        log.warning("spool_cut", file=path.name, kept=segment.count, bytes_cut=len(data) - segment.size)
    return segment


def write(descriptor: int, data: bytes) -> int:
    """Write all of ``data``; returns its length."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return len(data)


def _frames(path: Path, start: int, end: int, room: int) -> tuple[list[tuple[int, bytes | None]], bool]:
    """Return the frames between two positions of a file, as ``read_frames`` does, and whether all of them are
    among them. ``room``: bytes to read; more are read only where they hold no whole frame. Raises OSError."""
    data, more = b"", max(room, FRAME.size)
    with path.open("rb") as file:
        file.seek(start)
        while True:
            part = file.read(min(more, end - start - len(data)))
            data += part
            is_end = not part or len(data) == end - start
            frames = [(start + place, payload) for place, payload in read_frames(data, is_end=is_end)]
            if frames or is_end:
                return frames, is_end
            # The first frame is larger than what was read, or damaged.
            first = FRAME.size + FRAME.unpack_from(data)[0] - len(data)
            more = first if first > 0 else end - start


def _kept(payload: bytes | None) -> Kept | None:
    try:
        return None if payload is None else kept_of(payload)
    except ValueError as error:
        log.error("completion_unreadable", error=str(error))
        return None

"""One completion as it is kept on the disk, and in memory for feedback: its Kafka record in a frame.

A frame is the payload's length, the payload's CRC-32 (RFC 1952) and the payload. The payload is the length of
the head, the head and the record's value. The head is JSON: the fields by which erasures select completions,
and the record's key and headers. Numbers are unsigned, four bytes, little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, KafkaRecord
from tunewheel_contracts.events.production import InferenceCompleted

FRAME = struct.Struct("<II")
_HEAD = struct.Struct("<I")
_UNTRACED: Mapping[str, bytes] = MappingProxyType({})
OVERHEAD_BYTES = 1024
"""Estimated memory of a completion beside its value: its objects, key and headers."""


@dataclass(frozen=True, slots=True)
class Kept:
    project: str
    customer: str | None
    completion_id: str
    about: str
    """The completion id that an erasure may name. For a shadow copy it is the id of the copied completion."""
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


def kept_as(event: Envelope[InferenceCompleted], trace: Mapping[str, bytes] = _UNTRACED) -> Kept:
    """Return the completion of ``event`` in the form that is kept. ``trace``: the request's trace headers,
    which become headers of the record.

    Raises:
        ValueError: a text cannot be encoded as UTF-8.
    """
    data, record = event.data, event.to_kafka()
    record.headers.update(trace)
    return Kept(
        project=data.project,
        customer=data.customer,
        completion_id=data.completion_id,
        about=data.shadow_of or data.completion_id,
        completed_at=data.completed_at.timestamp(),
        record=record,
    )


def whole_frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the payload of every whole frame at the beginning of ``data``, with the position after it."""
    place = 0
    while place + FRAME.size <= len(data):
        length, crc = FRAME.unpack_from(data, place)
        end = place + FRAME.size + length
        payload = data[place + FRAME.size : end]
        # After a crash the end of a file may be zeros, which read as a frame of length 0.
        if not length or len(payload) < length or zlib.crc32(payload) != crc:
            return
        yield end, payload
        place = end


def kept_of(payload: bytes) -> Kept:
    """Read the payload of a frame.

    Raises:
        ValueError: ``payload`` was not written by ``Kept.frame``.
    """
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

"""Takes events as JSON, or as JSON Lines of any length in constant memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, UpstreamEvent, decode_data
from tunewheel_contracts.events.upstream import DocumentPublished
from tunewheel_contracts.reading import at_door
from tunewheel_runtime.admission import JSON_LINES
from tunewheel_runtime.identity.roles import Role

from tunewheel_ingest.documents import require_parser
from tunewheel_ingest.door.intake import (
    Intake,
    Receipt,
    TooLarge,
    answer,
    encoded,
    sent_by,
    status_of,
    unavailable,
)
from tunewheel_ingest.records import MAX_VALUE_BYTES

E = TypeVar("E", bound=UpstreamEvent)
FLUSH_BYTES = 8 << 20
LONGER = 8
"""How many times as long as its line an event may be on the log, as ``1e9`` becomes ``1000000000.0``."""


class Bulk:
    """Publishes the events of a body. A faulty line is refused without affecting the others."""

    def __init__(self, intake: Intake, *, max_body_bytes: int, publish_batch: int) -> None:
        self._intake = intake
        self._max_bytes = max_body_bytes
        self._batch = publish_batch

    async def take(
        self,
        event_class: type[E],
        request: Request,
        body: AsyncIterator[bytes],
        *,
        role: Role,
        project: str | None,
    ) -> JSONResponse:
        """Publish the events in ``body`` and say what became of each.

        Args:
            role: the role that the caller needs in the project of each event.
            project: the project of events that name none.

        Status 202: something was accepted, or nothing was refused; refusals are listed. 422: nothing was
        accepted. 403: nothing was accepted, because the caller lacks the role everywhere. 413: a single body
        is over the limit. 429: the project of the next line sends too much. 503: the broker is away. In both
        cases lines accepted before that stay accepted.
        """
        if (refused := encoded(request)) is not None:
            return refused
        receipt, waiting, size, statuses = Receipt(), list[Envelope[Any]](), 0, set[int]()
        admitted: set[str] = set()
        try:
            async for line in self._lines(request, body):
                try:
                    data = sent_by(request, self._read(event_class, line, project), role)
                    await self._intake.check_project(data.project)
                    if role is not Role.OPERATOR and data.project not in admitted:  # erasures never wait
                        self._intake.admit(data.project)
                        admitted.add(data.project)
                    waiting.append(self._small(self._intake.wrap(data), line))
                    size += len(line.data or b"")
                except InvalidEvent as error:
                    receipt.refuse(line.number, error)
                    statuses.add(status_of(error))
                if len(waiting) >= self._batch or size >= FLUSH_BYTES:
                    await self._flush(waiting, receipt)
                    size = 0
            await self._flush(waiting, receipt)
        except TransientError as error:
            return unavailable(receipt, error)
        if receipt.accepted or not statuses:
            return answer(receipt, 202)
        (status,) = statuses if len(statuses) == 1 else (422,)
        # With JSON Lines, only a line was too long, not the body, so 413 would be wrong.
        return answer(receipt, 422 if status == 413 and is_json_lines(request) else status)

    async def _lines(self, request: Request, body: AsyncIterator[bytes]) -> AsyncIterator[Line]:
        """Yield the body's lines; a body that is not JSON Lines is one line."""
        if is_json_lines(request):
            async for line in split_lines(body, max_bytes=self._max_bytes):
                yield line
            return
        whole = bytearray()
        async for chunk in body:
            whole += chunk
            if len(whole) > self._max_bytes:
                yield Line(1, None)
                return
        yield Line(1, bytes(whole))

    def _read(self, event_class: type[E], line: Line, project: str | None) -> E:
        if line.data is None:
            raise self._too_large(event_class, self._max_bytes)
        body = line.data.removeprefix(codecs.BOM_UTF8) if line.number == 1 else line.data
        event = decode_data(event_class, with_project(body, project), at_door())
        if isinstance(event, DocumentPublished):
            require_parser(event)
        return event

    def _small(self, event: Envelope[E], line: Line) -> Envelope[E]:
        """Return ``event``, which has more on the log than in the body: the caller, and fields by default."""
        is_long = len(line.data or b"") > MAX_VALUE_BYTES // LONGER
        if is_long and len(event.to_kafka().value) > MAX_VALUE_BYTES:
            raise self._too_large(type(event.data), MAX_VALUE_BYTES)
        return event

    def _too_large(self, event_class: type[UpstreamEvent], most: int) -> TooLarge:
        advice = "shorten it"
        if event_class is DocumentPublished:  # the log holds a document twice, whole and in sections
            advice = (
                "publish it in parts, such as one per chapter, or, if its text without markup is under "
                "1.8 MB and a million characters, send the file to /v1/documents/files"
            )
        reason = f"is over {most} bytes, the most of one event; {advice}"
        return TooLarge(field="(body)", reason=reason)

    async def _flush(self, waiting: list[Envelope[Any]], receipt: Receipt) -> None:
        await self._intake.publish(waiting)
        receipt.accept(waiting)
        waiting.clear()


def is_json_lines(request: Request) -> bool:
    return request.headers.get("content-type", "").split(";")[0].strip().lower() in JSON_LINES


def with_project(body: bytes, project: str | None) -> bytes:
    """Fill in the project of the query if the body names none."""
    if project is None:
        return body
    try:
        value = json.loads(body.decode("utf-8"))  # json.loads accepts UTF-16 in bytes as well
    except (ValueError, RecursionError):
        return body  # decoding the event refuses it with a better message
    if isinstance(value, dict):
        value.setdefault("project", project)
    return json.dumps(value).encode()


@dataclass(frozen=True, slots=True)
class Line:
    """One non-blank line; ``number`` counts from 1. ``data`` is None if the line was too long."""

    number: int
    data: bytes | None


async def split_lines(chunks: AsyncIterator[bytes], *, max_bytes: int) -> AsyncIterator[Line]:
    """Yield the lines of a byte stream. A line longer than ``max_bytes`` comes without its data."""
    rest, number, skipping = bytearray(), 0, False
    async for chunk in chunks:
        rest += chunk
        *lines, tail = rest.split(b"\n")
        rest = bytearray(tail)
        for line in lines:
            number += 1
            if skipping or len(line) > max_bytes:
                skipping = False
                yield Line(number, None)
            elif line.strip():
                yield Line(number, bytes(line))
        if len(rest) > max_bytes:
            rest, skipping = bytearray(), True
    if skipping or rest.strip():
        yield Line(number + 1, None if skipping else bytes(rest))

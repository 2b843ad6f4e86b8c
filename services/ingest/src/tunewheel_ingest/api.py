"""HTTP at the door: tickets, documents and examples, one by one or as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, UpstreamEvent, decode_data
from tunewheel_contracts.events.upstream import DocumentPublished, ExamplePublished, TicketPublished

from tunewheel_ingest.lines import Line, split_lines

E = TypeVar("E", bound=UpstreamEvent)
JSON_LINES = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
LISTED = 1_000
"""Ids and refusals that a receipt lists; beyond it they are only counted, so that memory stays bounded."""
FLUSH_BYTES = 8 << 20


class Intake(Protocol):
    """What the API needs of the service."""

    async def check_project(self, project: str) -> None: ...
    def wrap(self, data: Any) -> Envelope[Any]: ...
    async def publish(self, envelopes: list[Envelope[Any]]) -> None: ...


class Refusal(BaseModel):
    """One line that was not taken, and why."""

    line: int
    field: str
    reason: str


class Receipt(BaseModel):
    """What became of a request: what was accepted is on the log, acknowledged."""

    accepted: int = 0
    refusals: int = 0
    event_ids: list[str] = []
    """Of the first 1,000 accepted."""
    refused: list[Refusal] = []
    """The first 1,000 refused."""

    def accept(self, envelopes: Sequence[Envelope[Any]]) -> None:
        self.accepted += len(envelopes)
        self.event_ids.extend(e.id for e in envelopes[: LISTED - len(self.event_ids)])

    def refuse(self, line: int, error: InvalidEvent) -> None:
        self.refusals += 1
        if len(self.refused) < LISTED:
            self.refused.append(Refusal(line=line, field=error.field, reason=error.reason))


def make_api(intake: Intake, *, max_body_bytes: int, publish_batch: int) -> FastAPI:
    """Build the app.

    Status 202: everything was accepted, or what was refused is listed; 422: nothing was accepted;
    413: a single body over the limit; 503: the broker cannot be reached (accepted lines so far are kept,
    sending all of them again is harmless).
    """
    app = FastAPI(title="Tunewheel ingest", version="1", docs_url="/docs", redoc_url=None)

    async def take(event_class: type[E], request: Request, project: str | None) -> JSONResponse:
        receipt = Receipt()
        waiting: list[Envelope[Any]] = []
        size = 0
        try:
            async for line in _lines(request, max_body_bytes):
                try:
                    waiting.append(await _read(intake, event_class, line, project, max_body_bytes))
                    size += len(line.data or b"")
                except InvalidEvent as error:
                    receipt.refuse(line.number, error)
                if len(waiting) >= publish_batch or size >= FLUSH_BYTES:
                    await _flush(intake, waiting, receipt)
                    size = 0
            await _flush(intake, waiting, receipt)
        except TransientError as error:
            content = receipt.model_dump() | {"error": str(error)}
            return JSONResponse(content, status_code=503, headers={"Retry-After": "5"})
        return JSONResponse(receipt.model_dump(), status_code=_status(request, receipt))

    @app.post("/v1/tickets", status_code=202, response_model=Receipt)
    async def post_tickets(request: Request, project: str | None = Query(default=None)) -> JSONResponse:
        return await take(TicketPublished, request, project)

    @app.post("/v1/documents", status_code=202, response_model=Receipt)
    async def post_documents(request: Request, project: str | None = Query(default=None)) -> JSONResponse:
        return await take(DocumentPublished, request, project)

    @app.post("/v1/examples", status_code=202, response_model=Receipt)
    async def post_examples(request: Request, project: str | None = Query(default=None)) -> JSONResponse:
        return await take(ExamplePublished, request, project)

    return app


def _is_json_lines(request: Request) -> bool:
    return request.headers.get("content-type", "").split(";")[0].strip().lower() in JSON_LINES


async def _lines(request: Request, max_bytes: int) -> AsyncIterator[Line]:
    """Yield the body's lines; a body that is not JSON Lines is one line."""
    if _is_json_lines(request):
        async for line in split_lines(request.stream(), max_bytes=max_bytes):
            yield line
        return
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            yield Line(1, None)
            return
    yield Line(1, bytes(body))


async def _read(
    intake: Intake, event_class: type[E], line: Line, project: str | None, max_bytes: int
) -> Envelope[Any]:
    if line.data is None:
        raise InvalidEvent(field="(body)", reason=f"is over {max_bytes} bytes; split it or send JSON Lines")
    data = decode_data(event_class, _with_project(line.data, project))
    await intake.check_project(data.project)
    return intake.wrap(data)


def _with_project(body: bytes, project: str | None) -> bytes:
    """Fill in the project given in the query where the body names none."""
    if project is None:
        return body
    try:
        value = json.loads(body)
    except ValueError:
        return body  # refused, with the better message, when it is decoded
    if isinstance(value, dict):
        value.setdefault("project", project)
    return json.dumps(value).encode()


async def _flush(intake: Intake, waiting: list[Envelope[Any]], receipt: Receipt) -> None:
    await intake.publish(waiting)
    receipt.accept(waiting)
    waiting.clear()


def _status(request: Request, receipt: Receipt) -> int:
    if receipt.accepted or not receipt.refusals:
        return 202
    too_large = receipt.refused[0].reason.startswith("is over ") and not _is_json_lines(request)
    return 413 if too_large else 422

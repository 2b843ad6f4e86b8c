"""Shared by both HTTP interfaces: request bodies, errors, streams, clients that disconnect."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from tunewheel_generation.generation import Generation
from tunewheel_runtime.waiting import first_of

from tunewheel_engine.choices import Choices
from tunewheel_engine.errors import Refused, TooLarge

Body = TypeVar("Body", bound=BaseModel)


CLIENT_LEFT = 499
"""nginx's status for a client that closed the connection. It only shows in the access log."""


async def read_json(request: Request, limit: int) -> dict[str, Any]:
    """Return the JSON object in the body. Raises Refused, TooLarge."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise TooLarge(f"the body is over {limit} bytes; send less, or raise TUNEWHEEL_MAX_BODY_BYTES")
    try:
        content = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise Refused(f"the body is not JSON ({error}); send a JSON object", code="invalid_json") from error
    if not isinstance(content, dict):
        raise Refused("the body is no JSON object; send one", code="invalid_json")
    return content


def parse(model: type[Body], content: dict[str, Any]) -> Body:
    """``content`` as ``model``. Raises Refused, which names the first parameter at fault."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # Of the branches of a union, the one that got furthest says most.
        first = max(errors, key=lambda one: (one["loc"][:1] == errors[0]["loc"][:1], len(one["loc"])))
        param = _param(first["loc"])
        if first["type"] == "extra_forbidden":
            raise Refused(f"unknown parameter {param!r}; leave it out", param=param) from error
        raise Refused(f"{param}: {first['msg']}", param=param) from error


def _param(location: tuple[int | str, ...]) -> str:
    """messages[0].role, for ("messages", 0, "role"); the names of union branches are left out."""
    out = ""
    for step in location:
        if isinstance(step, int):
            out += f"[{step}]"
        elif step.isidentifier() and step not in ("str", "int", "list", "bool", "float"):
            out += f".{step}" if out else step
    return out


class EventStream(StreamingResponse):
    """Server-sent events of a generation, whose row is freed when the client leaves."""

    def __init__(self, events: AsyncGenerator[str], generation: Generation | Choices) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._events = events
        self._generation = generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._events):
                await super().__call__(scope, receive, send)
        finally:
            self._generation.cancel()


def event(content: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def while_connected(
    request: Request, answer: Coroutine[Any, Any, Response], generation: Generation | Choices
) -> Response:
    """Return ``answer``. If the client disconnects first, cancel ``generation``."""
    try:
        told, _ = await first_of(answer, _left(request))
    finally:
        generation.cancel()
    return Response(status_code=CLIENT_LEFT) if told is None else told


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

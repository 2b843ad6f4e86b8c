"""Asks an ASGI app in this process, by a path just as it is sent: no client tidies it up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope


@dataclass(frozen=True)
class Answer:
    """``status`` 500 where the app failed."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


async def ask(
    app: ASGIApp, method: str, target: str, *, headers: Mapping[str, str], body: bytes = b""
) -> Answer:
    """Return what ``app`` answers; ``target`` is path and query."""
    scope = _scope(target, headers)
    scope |= {"method": method, "http_version": "1.1"}
    waiting, received = [body], list[Message]()

    async def receive() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def send(message: Message) -> None:
        received.append(message)

    try:
        await app(scope, receive, send)
    except Exception:
        return Answer(500)
    start, *rest = received
    told = {name.decode(): value.decode() for name, value in start.get("headers", ())}
    return Answer(start["status"], b"".join(part.get("body", b"") for part in rest), told)


def _scope(target: str, headers: Mapping[str, str]) -> Scope:
    path, _, query = target.partition("?")
    sent = {"host": "127.0.0.1:8101", **headers}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "scheme": "http",
        "path": unquote(path),  # as uvicorn does
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 40_000),
        "server": ("127.0.0.1", 8101),
        "state": {},
    }

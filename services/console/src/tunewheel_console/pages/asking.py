"""Asks the control API within the process, as the caller of a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.requests import Request
from starlette.types import Message, Scope
from tunewheel_contracts.errors import TunewheelError
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_console.pages.drawing import draw

_JSON = ((b"accept", b"application/json"), (b"content-type", b"application/json"))
_OF_THE_PAGE = {"path_params", "endpoint", "route", "router"}


class NotAnswered(TunewheelError):
    """The API refused a question; ``status`` is its answer's, the message says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def ask(
    api: FastAPI, request: Request, path: str, query: Mapping[str, str] | None = None, body: Any = None
) -> Any:
    """Return the JSON of ``GET path``, or of ``POST path`` with ``body``, asked by the caller of ``request``.
    The guard of the route decides as it does for a program. Raises NotAnswered: the status is none of 2xx."""
    scope: Scope = {name: value for name, value in request.scope.items() if name not in _OF_THE_PAGE} | {
        "method": "GET" if body is None else "POST",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": urlencode(query or {}).encode(),
        "headers": [*_JSON, *_credentials(request)],
    }
    status, parts = 500, list[bytes]()

    async def receive() -> Message:
        sent = b"" if body is None else json.dumps(body).encode()
        return {"type": "http.request", "body": sent, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    await api.router(scope, receive, send)
    try:
        answer: Any = json.loads(b"".join(parts) or b"null")
    except ValueError:  # such as a proxy's page, before the registry
        raise NotAnswered(max(status, HTTPStatus.BAD_GATEWAY), "what answered speaks no JSON") from None
    if not 200 <= status < 300:
        raise NotAnswered(status, _reason(answer))
    return answer


def _credentials(request: Request) -> list[tuple[bytes, bytes]]:
    """Return what the caller is known by: a route may hand it on, as those of the registry do."""
    return [
        (name, value) for name, value in request.scope["headers"] if name in (b"authorization", b"cookie")
    ]


def _reason(answer: Any) -> str:
    match answer:
        case {"error": {"message": str(message), "param": str(name)}} if name.endswith("_id"):
            return message.removeprefix(f"{name}: ")  # a page says of what it is
        case {"error": {"message": str(message)}}:
            return message
        case _:
            return "there is nothing at this address"


PLAYGROUND = "/projects/{project}/playground"


def add_playground_form(api: FastAPI, headers: dict[str, str]) -> None:
    """Add the route, which takes the API's request for answers. Fields that nobody filled in are left out.
    ``headers``: of every page."""

    @api.post(PLAYGROUND, include_in_schema=False, response_class=HTMLResponse)
    @needs(Role.APPLICATION)
    async def answer(request: Request, body: dict[str, Any]) -> HTMLResponse:
        path, found, lacks = f"/v1{PLAYGROUND}".format(**request.path_params), dict[str, Any](), {}
        body, status = {name: value for name, value in body.items() if value != ""}, HTTPStatus.OK
        try:
            found["told"] = await ask(api, request, path, body=body)
        except NotAnswered as error:
            lacks, status = {"answers": str(error)}, HTTPStatus(error.status)
        of_project = path.removesuffix("/playground")
        for name, asked in (("it", of_project), ("models", f"{of_project}/models")):
            with suppress(NotAnswered):  # who may ask models need not be a viewer
                found[name] = await ask(api, request, asked)
        page = draw("playground", request, live=False, lacks=lacks, asked=body, **found)
        return HTMLResponse(page, status, headers)

"""The HTTP routes: OpenAI's, feedback, status and the OpenAPI document."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Caller, Role

from tunewheel_serve_gateway.connection import ClientGone, send_error
from tunewheel_serve_gateway.errors import (
    UNFORESEEN,
    ApiError,
    Headers,
    MethodNotAllowed,
    Unavailable,
    UnknownUrl,
    Unprocessable,
)
from tunewheel_serve_gateway.feedback import join, parse_feedback
from tunewheel_serve_gateway.gateway import Gateway
from tunewheel_serve_gateway.openapi import document
from tunewheel_serve_gateway.routing import ProjectTable
from tunewheel_serve_gateway.search import READERS

LONGEST_PATH = 200
Answered = Coroutine[Any, Any, tuple[bytes, Headers]]
"""The body of an answer, and its headers."""


class HotPath(Starlette):
    """A Starlette app that calls one route's app directly, without Starlette's layers. These would cost a
    dozen calls per request and two per piece of a streamed answer."""

    def __init__(self, hot: Route, **options: Any) -> None:
        """``hot``: one of the routes. Its app is plain ASGI, and its path has no parameters."""
        super().__init__(**options)
        self._hot = hot
        self._methods = hot.methods or frozenset[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self._hot.path or scope["method"] not in self._methods:
            await super().__call__(scope, receive, send)
            return
        try:
            await self._hot.app(scope, receive, send)  # This is the identity guard, which calls the app.
        except Exception:
            with contextlib.suppress(RuntimeError):  # Raised where a response has already begun.
                await send_error(send, ApiError(UNFORESEEN))
            raise


def make_api(gateway: Gateway) -> Starlette:
    """Build the app over ``gateway``."""

    def caller_for(request: Request) -> Caller:
        gateway.require_started()
        return caller_of(request)

    def models_for(request: Request) -> list[dict[str, Any]]:
        caller = caller_for(request)
        tables = gateway.table.projects.values()
        return models_of([t for t in tables if caller.may(Role.APPLICATION, t.project)])

    @needs(Role.APPLICATION)
    async def list_models(request: Request) -> Response:
        return json_response({"object": "list", "data": models_for(request)})

    @needs(Role.APPLICATION)
    async def read_model(request: Request) -> Response:
        name, caller = request.path_params["name"], caller_for(request)
        listed = (model for model in models_for(request) if model["id"] == name)
        if (model := next(listed, None)) is None:
            model = model_of(name, gateway.project_of(name, caller.projects_of(Role.APPLICATION)).created)
        return json_response(model)

    @needs(Role.APPLICATION)
    async def receive_feedback(request: Request) -> Response:
        caller = caller_for(request)
        try:
            with gateway.in_flight.taken(caller, request.scope) as taken:
                body = parse_feedback(await taken.body(request.receive))
                data = join(body, *await gateway.recall(body.completion_id, caller), caller)
                await gateway.publish_feedback(data)
        except TransientError as error:
            raise Unavailable(
                f"the feedback was not accepted: {error}; send it again", retry_after="2"
            ) from error
        except InvalidEvent as error:
            raise Unprocessable(str(error), param="messages") from error
        answer = {
            "feedback_id": data.feedback_id,
            "completion_id": data.completion_id,
            "project": data.project,
        }
        return json_response(answer, status=202)

    async def answered(request: Request, answer: Callable[[bytes, Caller], Answered]) -> Response:
        caller = caller_for(request)
        with gateway.in_flight.taken(caller, request.scope) as taken:
            body, headers = await answer(await taken.body(request.receive), caller)
        told = {name.decode(): value.decode() for name, value in headers}
        return Response(body, media_type="application/json", headers=told)

    @needs(Role.APPLICATION)
    async def embed(request: Request) -> Response:
        return await answered(request, gateway.embeddings.answer)

    @needs(*READERS)
    async def search(request: Request) -> Response:
        return await answered(request, gateway.search.answer)

    # For applications that are not answered, and for operators.
    @needs(*READERS)
    async def read_status(request: Request) -> Response:
        allowed = caller_for(request).projects_of(*READERS)
        return json_response(gateway.status(allowed))

    @needs(*Role)
    async def describe(_: Request) -> Response:
        return Response(document(), media_type="application/json")

    chat = Route("/v1/chat/completions", needs(Role.APPLICATION)(gateway.chat), methods=["POST"])
    return HotPath(
        chat,
        routes=[
            chat,
            Route("/openapi.json", describe),
            Route("/v1/embeddings", embed, methods=["POST"]),
            Route("/v1/completions", needs(Role.APPLICATION)(gateway.prompts), methods=["POST"]),
            Route("/v1/responses", needs(Role.APPLICATION)(gateway.responses), methods=["POST"]),
            Route("/v1/search", search, methods=["POST"]),
            Route("/v1/models", list_models),
            Route("/v1/models/{name:path}", read_model),
            Route("/v1/feedback", receive_feedback, methods=["POST"]),
            Route("/v1/status", read_status),
        ],
        exception_handlers={
            ApiError: on_api_error,
            HTTPException: on_http_exception,
            ClientGone: on_client_gone,
            Exception: on_unforeseen,
        },
    )


def models_of(tables: list[ProjectTable]) -> list[dict[str, Any]]:
    """Return the names under which the projects and their routed models are served, in OpenAI's shape."""
    found: dict[str, int] = {}
    for table in tables:
        names = [table.project, f"{table.project}/base", *(t.model_id for t in table.targets)]
        found |= dict.fromkeys(names, table.created)
        found.setdefault(table.base.upstream_model, table.created)
    return [model_of(name, created) for name, created in found.items()]


def model_of(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "tunewheel"}


def json_response(value: Any, *, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")


async def on_api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    headers = {name.decode(): value.decode("latin-1") for name, value in error.headers()}
    return Response(error.body(), status_code=error.status, headers=headers)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Put the router's errors (unknown path, wrong method) into OpenAI's shape."""
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.scope['path'][:LONGEST_PATH]}"
    refusal = ApiError(error.detail)
    refusal.status = error.status_code
    if error.status_code == 404:
        refusal = UnknownUrl(f"there is no {asked}; see /openapi.json for the endpoints")
    elif error.status_code == 405:
        refusal = MethodNotAllowed(f"there is no {asked}; the header Allow names the methods")
    answer = json_response(refusal.payload(), status=error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def on_unforeseen(_: Request, __: Exception) -> Response:
    """Answer 500 without details. The server logs the error."""
    return json_response(ApiError(UNFORESEEN).payload(), status=500)


async def on_client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # The client is gone; nginx logs the same status in this case.

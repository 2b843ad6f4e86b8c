"""``POST /v1/chat/completions``, as plain ASGI: one task does the work, one watches the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Receive, Scope, Send
from tunewheel_runtime.identity.guard import caller_of
from tunewheel_runtime.identity.roles import Caller

from tunewheel_serve_gateway.answering import Answering
from tunewheel_serve_gateway.chat_request import ChatRequest, parse_chat_request
from tunewheel_serve_gateway.connection import (
    JSON,
    ClientGone,
    header,
    read_body,
    send_body,
    send_error,
    send_events,
    until_gone,
)
from tunewheel_serve_gateway.errors import ApiError
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.upstream.protocol import UpstreamError

STICKY_HEADER = b"x-tunewheel-session"
"""Requests with equal values are answered by the same model while a canary is out."""


class ChatCompletions:
    def __init__(
        self,
        answering: Answering,
        require_started: Callable[[], None],
        metrics: Metrics,
        *,
        max_body_bytes: int,
    ) -> None:
        self._answering = answering
        self._require_started = require_started
        self._metrics = metrics
        self._limit = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._require_started()
            request = parse_chat_request(await read_body(scope, receive, limit=self._limit))
        except ApiError as error:
            self._metrics.add("completions.refused")
            await send_error(send, error)
            return
        except ClientGone:
            return
        caller = caller_of(scope)
        answer = self._stream if request.stream else self._plain
        work = asyncio.ensure_future(answer(request, caller, header(scope, STICKY_HEADER), send))
        watch = asyncio.ensure_future(until_gone(receive))
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self._metrics.add("completions.disconnected")
        finally:
            watch.cancel()
            if not work.done():
                work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        if not work.cancelled():
            work.result()

    async def _plain(self, request: ChatRequest, caller: Caller, sticky: str | None, send: Send) -> None:
        try:
            body, headers = await self._answering.complete(request, caller, sticky)
        except ApiError as error:
            await self._refuse(send, error)
            return
        await send_body(send, 200, [JSON, *headers], body)

    async def _stream(self, request: ChatRequest, caller: Caller, sticky: str | None, send: Send) -> None:
        try:
            opened = await self._answering.open_stream(request, caller, sticky)
        except ApiError as error:
            await self._refuse(send, error)
            return
        events = self._answering.events(opened)
        try:
            await send_events(send, opened.headers, events)
        finally:
            # A generator that never started does not close what it was given.
            await events.aclose()
            await opened.chunks.aclose()

    async def _refuse(self, send: Send, error: ApiError) -> None:
        if not isinstance(error, UpstreamError):
            self._metrics.add("completions.refused")
        await send_error(send, error)

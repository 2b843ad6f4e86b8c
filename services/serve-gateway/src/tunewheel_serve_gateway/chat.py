"""``POST /v1/chat/completions``, as plain ASGI: while it is answered, a second task watches the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Receive, Scope, Send
from tunewheel_runtime.identity.guard import caller_of
from tunewheel_runtime.identity.roles import Caller

from tunewheel_serve_gateway.admitting import Admission, Admitted
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
        admission: Admission,
        require_started: Callable[[], None],
        metrics: Metrics,
        *,
        max_body_bytes: int,
    ) -> None:
        self._answering = answering
        self._admission = admission
        self._require_started = require_started
        self._metrics = metrics
        self._limit = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._require_started()
            raw = await read_body(scope, receive, limit=self._limit)
            request = parse_chat_request(raw)
            caller = caller_of(scope)
            output_tokens = self._answering.most_tokens(request)
            admitted = await self._admission.admit(caller, size=len(raw), output_tokens=output_tokens)
        except ApiError as error:
            self._metrics.add("completions.refused")
            await send_error(send, error)
            return
        except ClientGone:
            return
        answer = self._stream if request.stream else self._plain
        sticky = header(scope, STICKY_HEADER)
        watch = _Watch(receive)
        try:
            await answer(request, caller, sticky, admitted, send)
        except asyncio.CancelledError:
            if not watch.is_gone:
                raise
            watch.forgive()
            self._metrics.add("completions.disconnected")
            admitted.abandon()
        finally:
            watch.end()
            await self._admission.settle(admitted)

    async def _plain(
        self, request: ChatRequest, caller: Caller, sticky: str | None, admitted: Admitted, send: Send
    ) -> None:
        try:
            body, headers, exchange = await self._answering.complete(request, caller, sticky)
        except ApiError as error:
            await self._refuse(send, error)
            return
        admitted.take(exchange)
        await send_body(send, 200, [JSON, *headers, *admitted.headers], body)

    async def _stream(
        self, request: ChatRequest, caller: Caller, sticky: str | None, admitted: Admitted, send: Send
    ) -> None:
        try:
            opened = await self._answering.open_stream(request, caller, sticky)
        except ApiError as error:
            await self._refuse(send, error)
            return
        events = self._answering.events(opened)
        try:
            await send_events(send, [*opened.headers, *admitted.headers], events)
        finally:
            admitted.take(opened.exchange)
            await events.aclose()
            await self._answering.close(opened)

    async def _refuse(self, send: Send, error: ApiError) -> None:
        if not isinstance(error, UpstreamError):
            self._metrics.add("completions.refused")
        await send_error(send, error)


class _Watch:
    """Cancels the task that made it when the client goes."""

    __slots__ = ("_task", "_worker", "is_gone")

    def __init__(self, receive: Receive) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        self._worker = worker
        self.is_gone = False
        self._task = asyncio.ensure_future(self._watch(receive))

    async def _watch(self, receive: Receive) -> None:
        await until_gone(receive)
        self.is_gone = True
        self._worker.cancel()

    def forgive(self) -> None:
        """Take the cancellation back: the worker ends by itself."""
        self._worker.uncancel()

    def end(self) -> None:
        self._task.cancel()

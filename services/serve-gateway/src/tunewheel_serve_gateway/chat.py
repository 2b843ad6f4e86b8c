"""``POST /v1/chat/completions`` and the endpoints that are mapped onto it, as plain ASGI.

A request whose client leaves is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send
from tunewheel_runtime.http import connection_of
from tunewheel_runtime.identity.guard import caller_of
from tunewheel_runtime.identity.roles import Caller

from tunewheel_serve_gateway.answering import Answering
from tunewheel_serve_gateway.chat_request import CHAT_WORDS, ChatRequest, Words, parse_chat_request
from tunewheel_serve_gateway.connection import (
    JSON,
    ClientGone,
    EventStream,
    header,
    send_body,
    send_error,
)
from tunewheel_serve_gateway.errors import UNFORESEEN, ApiError
from tunewheel_serve_gateway.limits.admitting import Admission, Admitted
from tunewheel_serve_gateway.limits.in_flight import InFlight, Taken
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream.protocol import UpstreamError

LOGPROB_BYTES = 80
"""Bytes that one log-probability takes in an answer's JSON: the token, its bytes and the number."""
STICKY_HEADER = b"x-tunewheel-session"
"""During a canary, requests with the same value are answered by the same model."""


@dataclass
class ChatCompletions:
    answering: Answering
    admission: Admission
    in_flight: InFlight
    require_started: Callable[[], None]
    metrics: Metrics
    settings: Settings
    parse: Callable[[bytes, Collection[str]], ChatRequest] = parse_chat_request
    words: Words = CHAT_WORDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = caller_of(scope)
        try:
            self.require_started()
            with self.in_flight.taken(caller, scope) as taken:
                request, admitted = await self._admit(receive, caller, taken)
                await self._answer(request, caller, admitted, scope, send)
        except ApiError as error:
            self.metrics.add("completions.refused")
            await send_error(send, error)
        except ClientGone:
            return

    async def _admit(self, receive: Receive, caller: Caller, taken: Taken) -> tuple[ChatRequest, Admitted]:
        """Read a request and charge it to its caller. The body itself is not kept: a request may be in flight
        for minutes."""
        raw = await taken.body(receive)
        request = self.parse(raw, self.settings.dropped)
        output_tokens = self.answering.most_tokens(request, caller)
        logprobs = self.answering.most_logprobs(request)
        taken.add(0 if request.stream else logprobs * LOGPROB_BYTES)
        param = self.words.renamed.get("messages", "messages")
        return request, await self.admission.admit(
            caller, size=len(raw), output_tokens=output_tokens, param=param
        )

    async def _answer(
        self,
        request: ChatRequest,
        caller: Caller,
        admitted: Admitted,
        scope: Scope,
        send: Send,
    ) -> None:
        answer = self._stream if request.stream else self._plain
        sticky = header(scope, STICKY_HEADER)
        watch = _Watch(scope)
        try:
            await answer(request, caller, sticky, admitted, send)
        except asyncio.CancelledError:
            if not watch.is_gone:
                raise
            watch.forgive()
            self.metrics.add("completions.disconnected")
            admitted.abandon()
        finally:
            watch.end()
            await self.admission.settle(admitted)

    async def _plain(
        self, request: ChatRequest, caller: Caller, sticky: str | None, admitted: Admitted, send: Send
    ) -> None:
        try:
            body, headers, exchange = await self.answering.complete(request, caller, sticky)
        except ApiError as error:
            self._count_refused(error)
            await send_error(send, self.words.told(error))
            return
        admitted.take(exchange)
        await send_body(send, 200, [JSON, *headers, *admitted.headers], body)

    async def _stream(
        self, request: ChatRequest, caller: Caller, sticky: str | None, admitted: Admitted, send: Send
    ) -> None:
        seconds = self.settings.heartbeat_seconds
        stream = EventStream(send, heartbeat_seconds=seconds, headers=admitted.headers)
        try:
            await self._stream_to(stream, request, caller, sticky, admitted)
        except ApiError as error:
            self._count_refused(error)
            await stream.fail(self.words.told(error))
        except Exception:
            if stream.begun:  # The status was sent, so the framework can no longer answer with an error.
                await stream.fail(ApiError(UNFORESEEN))
            raise
        finally:
            stream.close()

    async def _stream_to(
        self,
        stream: EventStream,
        request: ChatRequest,
        caller: Caller,
        sticky: str | None,
        admitted: Admitted,
    ) -> None:
        opened = await self.answering.open_stream(request, caller, sticky, stream.expect)
        events = self.answering.events(opened)
        try:
            await stream.begin(opened.headers)
            async for event in events:
                await stream.send(event)
            await stream.end()
        finally:
            admitted.take(opened.exchange)
            await events.aclose()
            await self.answering.close(opened)

    def _count_refused(self, error: ApiError) -> None:
        if not isinstance(error, UpstreamError):
            self.metrics.add("completions.refused")


class _Watch:
    """Cancels the task that created it when the client of ``scope`` disconnects."""

    __slots__ = ("_connection", "_worker", "is_gone")

    def __init__(self, scope: Scope) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        self._worker = worker
        self.is_gone = False
        self._connection = connection_of(scope)
        if self._connection is not None:
            self._connection.watch(self._on_gone)

    def _on_gone(self) -> None:
        self.is_gone = True
        self._worker.cancel()

    def forgive(self) -> None:
        """Take the cancellation back; the worker then ends by itself."""
        self._worker.uncancel()

    def end(self) -> None:
        if self._connection is not None:
            self._connection.watch(None)

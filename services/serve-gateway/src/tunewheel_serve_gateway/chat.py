"""A completion's life, from the door to its event.

1. ``InFlight.taken`` counts the request as in flight. ``_admit`` reads it and charges it to its caller.
2. ``Choosing.answered`` finds the model and its passages. It calls ``Answering`` for this model, and where
   that fails for the champion, or for the model after it was loaded again.
3. ``Answering`` begins an ``Exchange`` and asks an engine by ``upstream.asking``, with the wishes of
   ``LogprobSample`` and ``OutputSchemas``. ``Abstaining`` judges how sure the model is of the answer.
4. A ``Form`` writes the answer for the endpoint: ``Answer.whole``, or ``Answering.events``.
5. ``Outcomes`` measures it and copies the request to a shadow. ``CompletionLog.keep`` hands the exchange to a
   thread, where ``Recorder`` makes its event and ``Spool`` writes the event to the disk. Only then does the
   client get the last part.
6. ``CompletionLog`` publishes ``inference.completed`` from the disk.
7. ``Admission.settle`` charges the caller for the tokens that were used.

``POST /v1/chat/completions`` and the endpoints that are mapped onto it are plain ASGI. A request whose client
leaves is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send
from tunewheel_runtime.http import connection_of
from tunewheel_runtime.identity.guard import caller_of

from tunewheel_serve_gateway.answering import Answering
from tunewheel_serve_gateway.call import Call
from tunewheel_serve_gateway.chat_request import CHAT_WORDS, ChatRequest, Words, parse_chat_request
from tunewheel_serve_gateway.choosing import Choosing
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
from tunewheel_serve_gateway.limits.in_flight import LOGPROB_BYTES, InFlight, Taken
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream.protocol import UpstreamError

STICKY_HEADER = b"x-tunewheel-session"


@dataclass
class ChatCompletions:
    answering: Answering
    choosing: Choosing
    admission: Admission
    in_flight: InFlight
    require_started: Callable[[], None]
    metrics: Metrics
    settings: Settings
    parse: Callable[[bytes, Collection[str]], ChatRequest] = parse_chat_request
    words: Words = CHAT_WORDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self.require_started()
            with self.in_flight.taken(caller_of(scope), scope) as taken:
                call, admitted = await self._admit(scope, receive, taken)
                await self._answer(call, admitted, scope, send)
        except ApiError as error:
            self.metrics.add("completions.refused")
            await send_error(send, error)
        except ClientGone:
            return

    async def _admit(self, scope: Scope, receive: Receive, taken: Taken) -> tuple[Call, Admitted]:
        """Read a request and charge it to its caller. The body itself is not kept: a request may be in flight
        for minutes."""
        raw, caller = await taken.body(receive), caller_of(scope)
        request = self.parse(raw, self.settings.dropped)
        output_tokens = self.choosing.most_tokens(request, caller)
        logprobs = self.choosing.most_logprobs(request)
        taken.add(0 if request.stream else logprobs * LOGPROB_BYTES)
        param = self.words.renamed.get("messages", "messages")
        admitted = await self.admission.admit(caller, size=len(raw), output_tokens=output_tokens, param=param)
        return Call(request, caller, header(scope, STICKY_HEADER), taken.hold), admitted

    async def _answer(self, call: Call, admitted: Admitted, scope: Scope, send: Send) -> None:
        worker, connection, is_gone = asyncio.current_task(), connection_of(scope), False

        def on_gone() -> None:
            nonlocal is_gone
            assert worker is not None
            is_gone = worker.cancel()

        if connection is not None:
            connection.watch(on_gone)
        try:
            await (self._stream if call.request.stream else self._plain)(call, admitted, send)
        except asyncio.CancelledError:
            if not is_gone or worker is None:
                raise
            worker.uncancel()  # It ends by itself.
            self.metrics.add("completions.disconnected")
            admitted.abandon()
        finally:
            if connection is not None:
                connection.watch(None)
            await self.admission.settle(admitted)

    async def _plain(self, call: Call, admitted: Admitted, send: Send) -> None:
        try:
            answer = await self.answering.answer(call)
        except ApiError as error:
            self._count_refused(error)
            await send_error(send, self.words.told(error))
            return
        admitted.take(answer.exchange)
        await send_body(send, 200, [JSON, *answer.headers, *admitted.headers], answer.whole)

    async def _stream(self, call: Call, admitted: Admitted, send: Send) -> None:
        seconds = self.settings.heartbeat_seconds
        stream = EventStream(send, heartbeat_seconds=seconds, headers=admitted.headers)
        call.expect = stream.expect
        try:
            await self._stream_to(stream, call, admitted)
        except ApiError as error:
            self._count_refused(error)
            await stream.fail(self.words.told(error))
        except Exception:
            if stream.begun:  # The status was sent, so the framework can no longer answer with an error.
                await stream.fail(ApiError(UNFORESEEN))
            raise
        finally:
            stream.close()

    async def _stream_to(self, stream: EventStream, call: Call, admitted: Admitted) -> None:
        answer = await self.answering.answer(call)
        events = self.answering.events(answer)
        try:
            await stream.begin(answer.headers)
            async for event in events:
                await stream.send(event)
            await stream.end()
        finally:
            admitted.take(answer.exchange)
            await events.aclose()
            await self.answering.close(answer)

    def _count_refused(self, error: ApiError) -> None:
        if not isinstance(error, UpstreamError):
            self.metrics.add("completions.refused")

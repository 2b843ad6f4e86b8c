"""Asks one model for its answer, and writes the answer for the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import orjson
from tunewheel_runtime.telemetry import inject

from tunewheel_serve_gateway.abstaining import Abstaining, refused, told
from tunewheel_serve_gateway.call import Answer, Call
from tunewheel_serve_gateway.chat_request import LIMITS, ChatRequest
from tunewheel_serve_gateway.choosing import Choosing, is_on_trial, may_be_shorter
from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.ids import CompletionIds
from tunewheel_serve_gateway.completions.overrides import overrides_of
from tunewheel_serve_gateway.fallbacks import Fallbacks
from tunewheel_serve_gateway.limits.in_flight import LOGPROB_BYTES
from tunewheel_serve_gateway.logprobs import Ask, LogprobSample
from tunewheel_serve_gateway.outcomes import Outcomes
from tunewheel_serve_gateway.output_schema import OutputSchemas, StreamCheck, held_to
from tunewheel_serve_gateway.retrieval.retrieved import cite
from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream import asking
from tunewheel_serve_gateway.upstream.asking import Asked
from tunewheel_serve_gateway.upstream.pool import Pool
from tunewheel_serve_gateway.upstream.protocol import AT_HAND, Chunk, UpstreamError
from tunewheel_serve_gateway.upstream.sse import as_event

CHUNK_BYTES = 1_500
"""Memory that a chunk of a held stream takes beside its JSON: its dictionaries, and its log-probability."""


@dataclass
class Answering:
    pool: Pool
    choosing: Choosing
    outcomes: Outcomes
    ids: CompletionIds
    settings: Settings
    logprobs: LogprobSample
    abstaining: Abstaining
    fallbacks: Fallbacks
    schemas: OutputSchemas = field(default_factory=OutputSchemas)

    async def answer(self, call: Call) -> Answer:
        """Return an answer: ``whole`` and logged, or a stream whose first chunk has arrived, for ``events``.
        Raises ApiError: see ``errors`` and ``upstream.protocol``."""
        try:
            return await self.choosing.answered(call, self._attempt)
        except BaseException:
            if call.opened is not None:  # The client left while a replaced candidate's refusal was logged.
                await self.close(call.opened)
            raise

    async def _attempt(self, call: Call, target: Target, request: ChatRequest) -> Answer:
        answer = await self._ask(self.pool, call, target, request)
        if answer.exchange.abstained:
            answer = await self._instead(answer)
        if request.stream:
            call.opened = answer
            return answer
        answer.whole = orjson.dumps(answer.request.form.whole(_signed(answer.said, answer.exchange)))
        answer.said = {}  # Log-probabilities take ten times the memory of their JSON; do not wait with them.
        await self.outcomes.answered(answer)
        return answer

    async def _ask(self, pool: Pool, call: Call, target: Target, request: ChatRequest) -> Answer:
        """Return an answer of ``target``: whole, or a stream whose first chunk has arrived."""
        answer = self._begin(pool, call, target, request)
        try:
            if request.stream:
                await self._open(answer)
            else:
                answer.said = await self._complete(answer)
        except (UpstreamError, asyncio.CancelledError) as error:
            await self._note_failure(answer, error)
            raise
        return answer

    async def _instead(self, withheld: Answer) -> Answer:
        """Return the answer of the project's fallback in place of one that is ``withheld``; the latter, with
        its refusal, if there is no fallback or it fails."""
        found = self.fallbacks.of(withheld.target, withheld.request.model)
        if found is None:
            return withheld
        (pool, target), exchange = found, withheld.exchange
        exchange.finish(withheld.seconds)
        until = time.perf_counter() + self.fallbacks.patience(target.project)
        call = replace(withheld.call, asked=Asked(withheld.call.asked.arrived, until))
        try:
            ask = partial(self._ask, pool)
            answer = await self.choosing.within_context(call, target, withheld.request, ask)
        except UpstreamError as error:
            self.fallbacks.note(target.project, error)
            return withheld
        except BaseException as error:
            await self.outcomes.failed(exchange, error, withheld.seconds)
            raise
        self.fallbacks.note(target.project, None)
        answer.exchange.withheld = exchange
        return answer

    def _begin(self, pool: Pool, call: Call, target: Target, request: ChatRequest) -> Answer:
        started = time.perf_counter()
        request.check_limit(max(self.settings.max_output_tokens, target.max_output_tokens or 0))
        completion_id = self.ids.new(target.project)
        overrides = overrides_of(request, target)
        is_held = self.abstaining.holds(request, target, overrides)
        exchange = Exchange(
            project=target.project,
            completion_id=completion_id,
            model_id=target.model_id,
            role=target.role,
            messages=request.messages_with(target.system_prompt),
            pinned=target.pinned,
            client=call.caller.name,
            user=request.user,
            streamed=request.stream,
            overrides=overrides,
            schema=target.schema if request.is_held_to(target) else None,
            retrieved=request.retrieved,
            trace=inject(),
            queue_seconds=started - call.asked.arrived,
            is_sampled=is_held or self.logprobs.takes(request, target, completion_id),
            is_held=is_held,
            shows_logprobs=bool(request.parameters.get("logprobs")),
        )
        answer = Answer(call, pool, target, request, exchange, request.upstream_body(target), started)
        if request.stream:
            # Another model may yet answer, and a heartbeat would have named this one.
            is_open = is_on_trial(target) or (
                is_held and self.fallbacks.of(target, request.model) is not None
            )
            call.expect(request.headers if is_open else answer.headers)
        return answer

    async def _complete(self, answer: Answer) -> dict[str, Any]:
        """Return the whole answer, as it is sent."""
        request, target, exchange, asked = answer.request, answer.target, answer.exchange, answer.call.asked
        if exchange.is_held and not exchange.shows_logprobs:
            limits = [answer.body[name] for name in LIMITS if name in answer.body]
            answer.call.hold(max(limits, default=self.settings.max_output_tokens) * LOGPROB_BYTES)
        engine: Ask[dict[str, Any]] = partial(asking.complete, answer.pool, target, asked=asked)
        ask = partial(self.logprobs.ask, exchange, ask=partial(held_to, target, engine))
        said = await asked.in_time(self.schemas.complete(request, target, answer.body, ask))
        exchange.take(said)
        answer.told = await self.abstaining.judge(exchange, target)
        if exchange.abstained:
            return refused(said, exchange.refusal)
        cite(said, request.citation_for(target))
        return said

    async def _open(self, answer: Answer) -> None:
        """Wait for the first chunk of a stream, or for all of one that is held."""
        request, target = answer.request, answer.target
        if (check := await self.schemas.check(request, target)) is not None:
            answer.check = StreamCheck(check, request.parameters.get("n") or 1)
        ask = partial(self._opened, answer)
        chunks, first = await answer.call.asked.in_time(self.logprobs.ask(answer.exchange, answer.body, ask))
        answer.chunks, answer.first = chunks, first
        if answer.exchange.is_held:
            await self._hold(answer, chunks)

    async def _opened(
        self, answer: Answer, body: dict[str, Any], *, sampled: bool = False
    ) -> tuple[AsyncGenerator[Chunk, None], Chunk | None]:
        return await held_to(answer.target, partial(self._begun, answer), body, sampled=sampled)

    async def _begun(
        self, answer: Answer, body: dict[str, Any], *, sampled: bool = False
    ) -> tuple[AsyncGenerator[Chunk, None], Chunk | None]:
        chunks = asking.stream(answer.pool, answer.target, body, answer.call.asked, sampled=sampled)
        try:
            return chunks, await anext(chunks, None)
        except BaseException:
            await chunks.aclose()
            raise

    async def _hold(self, answer: Answer, chunks: AsyncGenerator[Chunk, None]) -> None:
        """Read a stream to its end, and keep what is sent of it. Raises UpstreamError: it broke off;
        Unavailable: the gateway has no memory left for it."""
        read: list[Chunk] = []
        async with aclosing(chunks):
            async for chunk in _all(answer.first, chunks):
                answer.take(chunk)
                answer.call.hold(CHUNK_BYTES + len(orjson.dumps(chunk)))
                read.append(chunk)
        answer.told = await self.abstaining.judge(answer.exchange, answer.target)
        answer.first, answer.chunks = None, _each(told(read, answer.exchange))

    async def _note_failure(self, answer: Answer, error: BaseException) -> None:
        """Decide whether the champion is asked instead, and log the failed request: a candidate's refusal
        after the champion's answer. Neither is done for one that is sent again with a shorter prompt."""
        if may_be_shorter(answer.request, error):
            return
        call = answer.call
        call.champion = self.choosing.champion_for(call, answer.target, error)
        is_replaced = call.champion is not None
        log_failure = partial(
            self.outcomes.failed, answer.exchange, error, answer.seconds, is_replaced=is_replaced
        )
        if is_replaced and isinstance(error, UpstreamError) and error.fault == "client":
            call.log_refusal = log_failure
        else:
            await log_failure()

    async def events(self, answer: Answer) -> AsyncGenerator[bytes, None]:
        """Yield a stream as server-sent events. Closing it early frees the engine."""
        exchange, request, chunks = answer.exchange, answer.request, answer.chunks
        assert chunks is not None
        answer.is_read = True
        waiting = b""
        """Events that arrived from the engine together with the next chunk; both are sent as one piece."""
        try:
            async for chunk in _all(answer.first, chunks):
                if not exchange.is_held:  # a held stream was read before
                    answer.take(chunk)
                if not exchange.abstained:
                    if answer.check is not None:
                        answer.check.mark(chunk)
                    cite(chunk, request.citation_for(answer.target))
                usage = chunk.pop("usage", None)
                if request.include_usage:
                    chunk["usage"] = usage
                at_hand = chunk.pop(AT_HAND, False)
                if chunk.get("choices") or (request.include_usage and usage):
                    waiting += request.form.piece(_signed(chunk, exchange))
                if waiting and not at_hand:
                    yield waiting
                    waiting = b""
        except UpstreamError as error:
            await self.outcomes.failed(exchange, error, answer.seconds)
            yield waiting + as_event(error.body())
            return
        except (asyncio.CancelledError, GeneratorExit) as error:
            await self.outcomes.failed(exchange, error, answer.seconds)
            raise
        finally:
            await chunks.aclose()
        await self.outcomes.answered(answer)
        yield waiting + request.form.end()

    async def close(self, answer: Answer) -> None:
        """Stop the engine's work on a stream whose client left before ``events`` was called."""
        if not answer.is_read and answer.chunks is not None:
            answer.is_read = True
            await self.outcomes.failed(answer.exchange, asyncio.CancelledError(), answer.seconds)
            await answer.chunks.aclose()


async def _all(first: Chunk | None, chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
    if first is not None:
        yield first
    async for chunk in chunks:
        yield chunk


async def _each(chunks: Sequence[Chunk]) -> AsyncGenerator[Chunk, None]:
    for chunk in chunks:
        yield chunk


def _signed(answer: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
    answer["id"] = exchange.completion_id
    answer["model"] = exchange.model_id
    return answer

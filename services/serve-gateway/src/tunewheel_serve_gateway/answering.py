"""Answers a chat request: chooses the model, sends the request to an engine, passes on the answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import orjson
from tunewheel_contracts.formats.serving import Fault, RouteRole
from tunewheel_runtime.identity.roles import Caller, Role
from tunewheel_runtime.telemetry import inject

from tunewheel_serve_gateway.abstaining import Abstaining, refused, told
from tunewheel_serve_gateway.catalog import Catalog
from tunewheel_serve_gateway.chat_request import LIMITS, ChatRequest
from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.ids import CompletionIds
from tunewheel_serve_gateway.completions.overrides import overrides_of
from tunewheel_serve_gateway.errors import BadRequest, Headers, Unavailable, UnknownModel
from tunewheel_serve_gateway.logprobs import Ask, LogprobSample
from tunewheel_serve_gateway.outcomes import Outcomes
from tunewheel_serve_gateway.output_schema import OutputSchemas, StreamCheck, held_to
from tunewheel_serve_gateway.reconcile import Reconciler
from tunewheel_serve_gateway.retrieval.retrieved import cite
from tunewheel_serve_gateway.retrieval.retriever import Retriever
from tunewheel_serve_gateway.routing import Target, sticky_draw
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream import asking
from tunewheel_serve_gateway.upstream.asking import Asked
from tunewheel_serve_gateway.upstream.pool import Pool
from tunewheel_serve_gateway.upstream.protocol import (
    AT_HAND,
    TOO_LONG,
    Chunk,
    ModelNotLoaded,
    UpstreamError,
)
from tunewheel_serve_gateway.upstream.sse import as_event

T = TypeVar("T")


@dataclass(slots=True)
class Opened:
    """A streamed answer whose first chunk has arrived. From here on the HTTP status is 200."""

    target: Target
    request: ChatRequest
    exchange: Exchange
    chunks: AsyncGenerator[Chunk, None]
    first: Chunk | None
    started: float
    told: Headers = field(default_factory=list[tuple[bytes, bytes]])
    """Headers that tell how sure the model is of a held answer."""
    check: StreamCheck | None = None
    """Checks the answer against the output schema; None: it is held to none."""
    begun: bool = False
    """Whether ``Answering.events`` was called for this answer."""

    @property
    def headers(self) -> Headers:
        return _headers(self.target, self.request) + self.told


@dataclass
class Answering:
    pool: Pool
    reconciler: Reconciler
    catalog: Catalog
    outcomes: Outcomes
    ids: CompletionIds
    retriever: Retriever
    settings: Settings
    logprobs: LogprobSample
    abstaining: Abstaining
    schemas: OutputSchemas = field(default_factory=OutputSchemas)

    def most_tokens(self, request: ChatRequest, caller: Caller) -> int:
        """Return an upper bound of the tokens of the answer and of the passages in its prompt. The bound
        holds whichever model answers."""
        return self._most_said(request) + self._most_passages(request, caller)

    def _most_said(self, request: ChatRequest) -> int:
        asked = [request.parameters[name] for name in LIMITS if name in request.parameters]
        table = self.reconciler.table.projects.get(request.model)
        usual = table.production.max_output_tokens if table and table.production else None
        most = max(asked, default=usual or self.settings.max_output_tokens)
        return most * (request.parameters.get("n") or 1)

    def most_logprobs(self, request: ChatRequest) -> int:
        """Return an upper bound of the log-probabilities in the answer. Raises BadRequest: there may be more
        than the limit."""
        if not request.parameters.get("logprobs"):
            return 0
        most = self._most_said(request) * ((request.parameters.get("top_logprobs") or 0) + 1)
        limit = self.settings.max_logprobs
        if most > limit:
            raise BadRequest(
                f"n * max_tokens * (top_logprobs + 1) is {most}; the limit here is {limit} "
                "log-probabilities: ask for fewer",
                param="top_logprobs",
                code="invalid_value",
            )
        return most

    def _most_passages(self, request: ChatRequest, caller: Caller) -> int:
        """Return the most tokens of passages that any project which may answer puts into the prompt."""
        owners = self.reconciler.table.owners(request.model)
        version = None if owners else self.catalog.version(request.model)
        if version is not None:
            owners = [version.project]
        allowed = caller.projects_of(Role.APPLICATION)
        return max(
            (
                self.retriever.most_tokens(project, request.retrieval)
                for project in owners
                if allowed is None or project in allowed
            ),
            default=0,
        )

    async def complete(
        self, request: ChatRequest, caller: Caller, sticky: str | None
    ) -> tuple[bytes, Headers, Exchange]:
        """Return the whole answer, the headers that name its model, and the exchange that is logged. Raises
        ApiError: see ``errors`` and ``upstream.protocol``."""

        asked = Asked()

        async def ask(target: Target, request: ChatRequest) -> tuple[bytes, Headers, Exchange]:
            started = time.perf_counter()
            exchange, body = self._begin(request, caller, target, started - asked.arrived)
            try:
                whole: Ask[dict[str, Any]] = partial(
                    held_to, target, partial(asking.complete, self.pool, target, asked=asked)
                )
                ask_sampled = partial(self.logprobs.ask, exchange, ask=whole)
                answer = await asked.in_time(self.schemas.complete(request, target, body, ask_sampled))
                exchange.take(answer)
                headers = _headers(target, request) + await self.abstaining.judge(exchange, target)
            except (UpstreamError, asyncio.CancelledError) as error:
                await self._note_failure(target, request, exchange, error, started, asked)
                raise
            if exchange.abstained:
                answer = refused(answer)
            else:
                cite(answer, request.citation_for(target))
            said = orjson.dumps(request.form.whole(_signed(answer, exchange)))
            del answer  # Log-probabilities take ten times the memory of their JSON; do not wait with them.
            await self.outcomes.answered(target, request, exchange, started)
            return said, headers, exchange

        return await self._with_loaded_model(request, caller, sticky, asked, ask)

    async def open_stream(
        self, request: ChatRequest, caller: Caller, sticky: str | None, expect: Callable[[Headers], None]
    ) -> Opened:
        """Wait for the first chunk of a streamed answer; ``events`` then yields the whole answer.

        ``expect`` is called with the answer's headers as soon as the model is chosen. Raises ApiError: the
        request failed before the first chunk.
        """

        asked = Asked()

        async def ask(target: Target, request: ChatRequest) -> Opened:
            started = time.perf_counter()
            # The champion may yet answer for a candidate, and a heartbeat would have named the candidate.
            expect(request.headers if _is_on_trial(target) else _headers(target, request))
            exchange, body = self._begin(request, caller, target, started - asked.arrived)
            try:
                check = await self.schemas.check(request, target)
                opened = partial(self._opened, target, asked)
                chunks, first = await asked.in_time(self.logprobs.ask(exchange, body, opened))
                held = None
                if exchange.is_held:
                    held = await self._held(target, request, exchange, chunks, first, started)
            except (UpstreamError, asyncio.CancelledError) as error:
                await self._note_failure(target, request, exchange, error, started, asked)
                raise
            checked = StreamCheck(check, request.parameters.get("n") or 1) if check is not None else None
            if held is not None:
                return replace(held, check=checked)
            return Opened(target, request, exchange, chunks, first, started, check=checked)

        return await self._with_loaded_model(request, caller, sticky, asked, ask)

    async def _opened(
        self, target: Target, asked: Asked, body: dict[str, Any], *, sampled: bool = False
    ) -> tuple[AsyncGenerator[Chunk, None], Chunk | None]:
        return await held_to(target, partial(self._begun, target, asked), body, sampled=sampled)

    async def _begun(
        self, target: Target, asked: Asked, body: dict[str, Any], *, sampled: bool = False
    ) -> tuple[AsyncGenerator[Chunk, None], Chunk | None]:
        chunks = asking.stream(self.pool, target, body, asked, sampled=sampled)
        try:
            return chunks, await anext(chunks, None)
        except BaseException:
            await chunks.aclose()
            raise

    async def _held(
        self,
        target: Target,
        request: ChatRequest,
        exchange: Exchange,
        chunks: AsyncGenerator[Chunk, None],
        first: Chunk | None,
        started: float,
    ) -> Opened:
        """Read a stream to its end, and return what is sent of it. Raises UpstreamError: it broke off."""
        read: list[Chunk] = []
        try:
            async for chunk in _all(first, chunks):
                if exchange.take_chunk(chunk) and exchange.first_token_seconds is None:
                    exchange.first_token_seconds = time.perf_counter() - started
                read.append(chunk)
        finally:
            await chunks.aclose()
        headers = await self.abstaining.judge(exchange, target)
        return Opened(target, request, exchange, _each(told(read, exchange)), None, started, headers)

    async def events(self, opened: Opened) -> AsyncGenerator[bytes, None]:
        """Yield the answer as server-sent events. Closing it early frees the engine."""
        exchange, request, started = opened.exchange, opened.request, opened.started
        opened.begun = True
        held = b""
        """Events that arrived from the engine together with the next chunk; both are sent as one piece."""
        try:
            async for chunk in _all(opened.first, opened.chunks):
                is_new = exchange.is_held or exchange.take_chunk(chunk)  # a held stream was read before
                if is_new and exchange.first_token_seconds is None:
                    exchange.first_token_seconds = time.perf_counter() - started
                if not exchange.abstained:
                    if opened.check is not None:
                        opened.check.mark(chunk)
                    cite(chunk, request.citation_for(opened.target))
                usage = chunk.pop("usage", None)
                if request.include_usage:
                    chunk["usage"] = usage
                at_hand = chunk.pop(AT_HAND, False)
                if chunk.get("choices") or (request.include_usage and usage):
                    held += request.form.piece(_signed(chunk, exchange))
                if held and not at_hand:
                    yield held
                    held = b""
        except UpstreamError as error:
            await self.outcomes.failed(exchange, error, time.perf_counter() - started)
            yield held + as_event(error.body())
            return
        except (asyncio.CancelledError, GeneratorExit) as error:
            await self.outcomes.failed(exchange, error, time.perf_counter() - started)
            raise
        finally:
            await opened.chunks.aclose()
        await self.outcomes.answered(opened.target, request, exchange, started)
        yield held + request.form.end()

    async def close(self, opened: Opened) -> None:
        """Stop the engine's work on an answer whose client left before ``events`` was called."""
        if not opened.begun:
            opened.begun = True
            seconds = time.perf_counter() - opened.started
            await self.outcomes.failed(opened.exchange, asyncio.CancelledError(), seconds)
            await opened.chunks.aclose()

    async def _with_loaded_model(
        self,
        request: ChatRequest,
        caller: Caller,
        sticky: str | None,
        asked: Asked,
        ask: Callable[[Target, ChatRequest], Awaitable[T]],
    ) -> T:
        """Choose the model, retrieve passages and call ``ask``.

        Where a candidate in canary fails or refuses, call ``ask`` for the champion, in what is left of the
        time for the first token. Where no engine has the model loaded any more, reload the model and call
        ``ask`` once more.
        """
        # Drawn once for both attempts: a heartbeat may already have sent the headers that name the model.
        chance = random.random()
        target = await self._find(request, caller, sticky, chance)
        request = await self._with_passages(request, target.project, caller)
        try:
            return await self._within_context(target, request, ask)
        except UpstreamError as error:
            champion, failure = asked.champion, error
            if champion is not None:
                target, asked.until = champion, asked.arrived + self._first_byte_seconds
            elif target.adapter is None or not isinstance(error, ModelNotLoaded):
                raise
        if champion is not None:
            try:
                return await self._replacing(target, failure, request, asked, ask)
            except ModelNotLoaded:
                if target.adapter is None:
                    raise
        await asked.in_time(self.reconciler.reload(target.model_id))
        if champion is None:
            target = await self._find(request, caller, sticky, chance)
        try:
            return await self._within_context(target, request, ask)
        except ModelNotLoaded as error:
            message = f"model {target.model_id} is being loaded; try again shortly"
            raise Unavailable(message, param="model", retry_after="2") from error

    async def _replacing(
        self,
        champion: Target,
        failure: UpstreamError,
        request: ChatRequest,
        asked: Asked,
        ask: Callable[[Target, ChatRequest], Awaitable[T]],
    ) -> T:
        """Call ``ask`` for the champion, after the ``failure`` of a candidate. Where the candidate refused
        the request, log that: as the model's fault if the champion answers, else as the client's."""
        log_refusal, asked.log_refusal = asked.log_refusal, None
        fault: Fault = "client"
        try:
            answer = await self._within_context(champion, request, ask)
            fault = "model"
            return answer
        finally:
            if log_refusal is not None:
                failure.fault = fault
                await log_refusal()

    @property
    def _first_byte_seconds(self) -> float:
        return self.settings.engine_first_byte_seconds or self.settings.engine_timeout_seconds

    def _instead(self, target: Target, error: BaseException, asked: Asked) -> Target | None:
        """Return the champion, to be asked because ``target``, a candidate in canary, failed with ``error``.

        It counts as pinned, so that the rollout compares it by its own share of the requests alone. None:
        the client gets the error, because ``target`` is no candidate, or no time is left.
        """
        if not (_is_on_trial(target) and isinstance(error, UpstreamError)):
            return None
        if time.perf_counter() - asked.arrived >= self._first_byte_seconds:
            return None
        table = self.reconciler.table.projects.get(target.project)
        champion = table.production if table is not None else None
        return None if champion is None else replace(champion, pinned=True)

    async def _note_failure(
        self,
        target: Target,
        request: ChatRequest,
        exchange: Exchange,
        error: BaseException,
        started: float,
        asked: Asked,
    ) -> None:
        """Decide whether the champion is asked instead, and log the failed request: a candidate's refusal
        after the champion's answer. Neither is done for one that is sent again with a shorter prompt."""
        if _may_be_shorter(request, error):
            return
        asked.champion, seconds = self._instead(target, error, asked), time.perf_counter() - started
        is_replaced = asked.champion is not None
        log_failure = partial(self.outcomes.failed, exchange, error, seconds, is_replaced=is_replaced)
        if is_replaced and isinstance(error, UpstreamError) and error.fault == "client":
            asked.log_refusal = log_failure
        else:
            await log_failure()

    async def _within_context(
        self, target: Target, request: ChatRequest, ask: Callable[[Target, ChatRequest], Awaitable[T]]
    ) -> T:
        """Call ``ask``. While the engine refuses the prompt as too long, drop the last passage and call it
        again. A prompt that is too long without passages is refused: the client must shorten it."""
        while True:
            try:
                return await ask(target, request)
            except UpstreamError as error:
                fewer = request.without_last_passage()
                if fewer is None or not _may_be_shorter(request, error):
                    raise
                request = fewer
                self.outcomes.shortened()

    async def _find(self, request: ChatRequest, caller: Caller, sticky: str | None, chance: float) -> Target:
        """Return the model that answers. ``chance`` decides between champion and canary where the request
        names no user. A version that no route names is loaded first."""
        table, key = self.reconciler.table, sticky or request.user
        candidate = table.candidate(request.model)
        draw = sticky_draw(request.model, key, candidate) if key else chance
        allowed = caller.projects_of(Role.APPLICATION)
        try:
            return table.find(request.model, draw=draw, allowed=allowed)
        except Unavailable:
            if not await self.reconciler.reloaded(table.waiting_for(request.model)):
                raise
            return self.reconciler.table.find(request.model, draw=draw, allowed=allowed)
        except UnknownModel:
            version = self.catalog.version(request.model)
            if version is None or (allowed is not None and version.project not in allowed):
                raise
        return await self.reconciler.on_demand(version)

    async def _with_passages(self, request: ChatRequest, project: str, caller: Caller) -> ChatRequest:
        found = await self.retriever.retrieve(project, request.conversation, request.retrieval, caller.groups)
        as_declared = self.retriever.is_declared(project, request.retrieval)
        if found is None and as_declared:
            return request
        return replace(request, retrieved=found, retrieves_as_declared=as_declared)

    def _begin(
        self, request: ChatRequest, caller: Caller, target: Target, queued: float
    ) -> tuple[Exchange, dict[str, Any]]:
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
            client=caller.name,
            user=request.user,
            streamed=request.stream,
            overrides=overrides,
            schema=target.schema if request.is_held_to(target) else None,
            retrieved=request.retrieved,
            trace=inject(),
            queue_seconds=queued,
            is_sampled=is_held or self.logprobs.takes(request, target, completion_id),
            is_held=is_held,
            shows_logprobs=bool(request.parameters.get("logprobs")),
        )
        return exchange, request.upstream_body(target)


def _is_on_trial(target: Target) -> bool:
    """Return whether ``target`` is a candidate that answers its share of the requests."""
    return target.role is RouteRole.CANARY and not target.pinned


def _may_be_shorter(request: ChatRequest, error: BaseException) -> bool:
    """Return whether ``request`` was refused as too long and its prompt has a passage that can be dropped."""
    is_refused = isinstance(error, UpstreamError) and error.code == TOO_LONG
    return is_refused and request.retrieved is not None and request.retrieved.fewer is not None


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


def _headers(target: Target, request: ChatRequest) -> Headers:
    """Return the headers that name the model which answers, and the passages in its prompt."""
    return [
        *request.headers,
        (b"x-tunewheel-model", target.model_id.encode("latin-1", "replace")),
        (b"x-tunewheel-role", target.role.value.encode()),
    ]

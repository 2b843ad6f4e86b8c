"""One request to the engines of the pool: who is asked when an engine fails.

Until the first token of the answer another engine is tried, each engine at most once. By the error:

UpstreamAway, UpstreamSilent, UpstreamBroken   counts against the engine
ModelFailed                                    counts against the engine if another engine answers the same
                                               request
any of these, once the request was sent        after two no other engine is asked, for no other model either,
                                               and the client is told not to ask again: the request may end
                                               every engine that gets it
UpstreamSilent of a whole answer               the client gets it at once if the engine answered others
                                               meanwhile: the request is too long; if not, one other is tried
ModelNotLoaded                                 the engine lost the adapter: it is loaded there again
UpstreamRefused 429                            the queue of the engine is full
UpstreamRefused, any other                     the client's own fault: no other engine is asked
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.upstream.balancing import beginning_of
from tunewheel_serve_gateway.upstream.endpoint import Endpoint
from tunewheel_serve_gateway.upstream.pool import Pool
from tunewheel_serve_gateway.upstream.protocol import (
    Chunk,
    ModelFailed,
    ModelNotLoaded,
    UpstreamAway,
    UpstreamBroken,
    UpstreamError,
    UpstreamLost,
    UpstreamRefused,
    UpstreamSilent,
    says_something,
)

T = TypeVar("T")
MOST_HELD = 16
"""Chunks without text that are held back, so that another engine can still be tried."""


@dataclass(slots=True)
class Asked:
    """What became of one request so far, over all models that were asked."""

    arrived: float = field(default_factory=time.perf_counter)
    """When the request arrived, in seconds of ``time.perf_counter``."""
    until: float | None = None
    """Until when the answer must begin, by the same clock. None: the engine's time-outs suffice."""
    doubted: set[Endpoint] = field(default_factory=set[Endpoint])
    """The engines that were sent the request and gave no answer: it may be the request's fault."""

    async def in_time(self, answer: Awaitable[T]) -> T:
        """Return ``answer``. Raises UpstreamSilent: it has not begun in time."""
        if self.until is None:
            return await answer
        try:
            async with asyncio.timeout(self.until - time.perf_counter()):
                return await answer
        except TimeoutError as error:
            raise UpstreamSilent("no answer began in time; try again, or send a shorter request") from error


async def complete(
    pool: Pool, target: Target, body: dict[str, Any], asked: Asked | None = None, *, sampled: bool = False
) -> dict[str, Any]:
    """Return the whole ``chat.completion``. Raises UpstreamError: no engine answered."""
    attempt = _Attempt(pool, target, body, asked, whole=True)
    while True:
        endpoint = attempt.next_engine()
        with endpoint.answering(target.model_id):
            try:
                answer = await endpoint.client.complete(endpoint.body_for(target, body, sampled=sampled))
            except UpstreamError as error:
                attempt.note(error)
                continue
        attempt.note_answer()
        pool.note_success(endpoint)
        return answer


async def stream(
    pool: Pool, target: Target, body: dict[str, Any], asked: Asked | None = None, *, sampled: bool = False
) -> AsyncGenerator[Chunk, None]:
    """Yield the chunks of one engine's answer; another engine is tried until the first text. Raises
    UpstreamError: no engine answered, or the one that did broke off."""
    attempt = _Attempt(pool, target, body, asked, whole=False)
    while True:
        endpoint = attempt.next_engine()
        chunks = endpoint.client.stream(endpoint.body_for(target, body, sampled=sampled))
        held: list[Chunk] = []
        with endpoint.answering(target.model_id):
            try:
                async for chunk in chunks:
                    held.append(chunk)
                    if says_something(chunk) or len(held) == MOST_HELD:
                        break
                attempt.has_begun = True
                attempt.note_answer()
                if endpoint.breaker.is_open:  # others need not wait for the end of its trial
                    pool.note_success(endpoint)
                for chunk in held:
                    yield chunk
                async for chunk in chunks:
                    yield chunk
                pool.note_success(endpoint)
                return
            except UpstreamError as error:
                attempt.note(error)
            finally:
                await chunks.aclose()


class _Attempt:
    """One request to one model: the engines that were asked, and the errors of those engines."""

    def __init__(
        self, pool: Pool, target: Target, body: dict[str, Any], asked: Asked | None, *, whole: bool
    ) -> None:
        """``whole``: the answer is not streamed, so a long one is silent until it is there."""
        self._pool = pool
        self._target = target
        self._beginning = beginning_of(target.model_id, body.get("messages", ()))
        self._whole = whole
        self._tried: list[Endpoint] = []
        self._asked_at = 0.0
        self._suspects: list[tuple[Endpoint, ModelFailed]] = []
        """Who failed where nobody can tell yet whether the request, or its model, is at fault."""
        self._doubts = 0
        """How many engines were sent the request for this model and gave no answer."""
        self._doubted = (asked or Asked()).doubted
        self._error: UpstreamError | None = None
        self.has_begun = False
        """Whether the client has a part of the answer: nobody else can be asked."""

    def next_engine(self) -> Endpoint:
        """Return the next engine to ask. Raises UpstreamError: everybody was asked, or nobody can be."""
        barred = self._tried
        if len(self._doubted) > 1:  # the request may have ended them already, and must not end a third
            barred = [e for e in self._pool.endpoints if e in self._tried or e not in self._doubted]
        endpoint = self._pool.choose(self._target, barred, self._beginning)
        if endpoint is None:
            error = self._error or self._pool.why_none(self._target)
            raise _given_up(error) if len(self._doubted) > 1 else error
        if self._tried:
            self._pool.count_retry(self._tried[-1])
        self._tried.append(endpoint)
        self._asked_at = time.monotonic()
        return endpoint

    def note_answer(self) -> None:
        """Take note that the engine asked last answers: what others failed at can be done."""
        self._tried[-1].answered_at = time.monotonic()
        for endpoint, error in self._suspects:
            self._pool.note_fault(endpoint, error)
        self._suspects.clear()

    def note(self, error: UpstreamError) -> None:
        """Take note of a failure. Raises UpstreamError: no other engine may be asked."""
        error.engine = endpoint = self._tried[-1]
        is_too_long = self._is_too_long(error, endpoint)
        if isinstance(error, ModelFailed):
            self._suspects.append((endpoint, error))
        if isinstance(error, ModelFailed) or is_too_long:
            endpoint.breaker.give_up()  # if this was its trial, it told nothing
        else:
            self._pool.note_failure(endpoint, self._target, error, asked_at=self._asked_at)
        if isinstance(error, UpstreamLost | UpstreamSilent | UpstreamBroken):
            self._doubts += 1
            self._doubted.add(endpoint)
        is_refused = isinstance(error, UpstreamRefused) and error.status != 429
        if self.has_begun or is_refused or is_too_long:
            raise error
        if self._doubts > 1:
            raise _given_up(error)
        if self._error is None or _weight(error) >= _weight(self._error):
            self._error = error

    def _is_too_long(self, error: UpstreamError, endpoint: Endpoint) -> bool:
        """Tell whether a whole answer did not come in time though the engine gave others meanwhile."""
        return self._whole and isinstance(error, UpstreamSilent) and endpoint.answered_at > self._asked_at


def _given_up(error: UpstreamError) -> UpstreamError:
    """Return the error for a request that a second engine did not answer. A retry would reach two more."""
    if isinstance(error, UpstreamAway):
        error = UpstreamBroken(
            "two engines were lost while they worked on this request; it is not sent to a third. Change it "
            "before you send it again"
        )
    error.should_retry = False
    return error


def _weight(error: UpstreamError) -> int:
    """Return how much ``error`` tells the client, of those that several engines gave: a model that can be
    loaded again comes before a full queue, and that before an engine that is away."""
    if isinstance(error, ModelNotLoaded):
        return 2
    return 1 if isinstance(error, UpstreamRefused) else 0

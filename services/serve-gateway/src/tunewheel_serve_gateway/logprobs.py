"""Asks engines for the log-probabilities of a sample of production's answers. Clients do not notice it."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog
from tunewheel_contracts.formats.serving import RouteRole

from tunewheel_serve_gateway.chat_request import ChatRequest
from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.ids import is_drawn
from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.upstream.protocol import TOO_LONG, ModelFailed, UpstreamRefused

log = structlog.get_logger(__name__)
T = TypeVar("T", covariant=True)
REFUSED_SECONDS = 3600.0
"""An engine that refused log-probabilities is not asked for them for so long."""


class Ask(Protocol[T]):
    """Sends a body to an engine, which is asked for log-probabilities too if the answer is ``sampled``."""

    def __call__(self, body: dict[str, Any], *, sampled: bool = False) -> Awaitable[T]: ...


@dataclass(frozen=True)
class LogprobSample:
    """``share``: of the requests that production's model is asked."""

    share: float

    def takes(self, request: ChatRequest, target: Target, completion_id: str) -> bool:
        """Return whether the confidence of this answer is measured."""
        is_routed = target.role is RouteRole.PRODUCTION and not target.pinned
        has_one_answer = (request.parameters.get("n") or 1) == 1
        return is_routed and has_one_answer and is_drawn(completion_id, self.share)

    async def ask(self, exchange: Exchange, body: dict[str, Any], ask: Ask[T]) -> T:
        """Return what ``ask`` answers to ``body``, with log-probabilities if ``exchange`` is sampled.

        An engine that refuses these, or fails, is asked again without them: no client's request may fail for
        the sample. Raises UpstreamError: see ``ask``.
        """
        if not exchange.is_sampled or exchange.shows_logprobs:
            return await ask(body)
        try:
            if exchange.is_held:  # without them nothing is sent, so the engine is asked again each time
                return await ask({**body, "logprobs": True})
            return await ask(body, sampled=True)
        except (UpstreamRefused, ModelFailed) as error:
            engine = error.engine
            if error.status == 429 or error.code == TOO_LONG:
                raise
            is_spared = engine is not None and time.monotonic() < engine.scores_from
            if engine is None or (is_spared and not exchange.is_held):  # it was not asked for them
                raise
            answer = await ask(body)
            if exchange.is_held:
                return answer
            engine.scores_from = time.monotonic() + REFUSED_SECONDS
            log.warning(
                "logprobs_refused", engine=engine.name, reason=str(error),
                asked_again_after_seconds=REFUSED_SECONDS,
            )  # fmt: skip
            return answer

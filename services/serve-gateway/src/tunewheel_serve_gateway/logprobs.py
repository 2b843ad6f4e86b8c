"""Asks engines for the log-probabilities of a sample of production's answers. Clients do not notice it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from tunewheel_contracts.formats.serving import RouteRole

from tunewheel_serve_gateway.chat_request import ChatRequest
from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.ids import is_drawn
from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.upstream.protocol import TOO_LONG, ModelFailed, UpstreamRefused

log = structlog.get_logger(__name__)
T = TypeVar("T")
REFUSED_SECONDS = 3600.0
"""After an engine refused log-probabilities, no engine is asked for them for so long."""


@dataclass
class LogprobSample:
    """``share``: of the requests that production's model is asked."""

    share: float
    _begins_at: float = 0.0
    """Monotonic time, in seconds, from which engines are asked for log-probabilities."""

    def takes(self, request: ChatRequest, target: Target, completion_id: str) -> bool:
        """Return whether the confidence of this answer is measured."""
        is_routed = target.role is RouteRole.PRODUCTION and not target.pinned
        has_one_answer = (request.parameters.get("n") or 1) == 1
        is_served = time.monotonic() >= self._begins_at
        return is_routed and has_one_answer and is_served and is_drawn(completion_id, self.share)

    async def ask(
        self, exchange: Exchange, body: dict[str, Any], ask: Callable[[dict[str, Any]], Awaitable[T]]
    ) -> T:
        """Return what ``ask`` answers to ``body``, with log-probabilities if ``exchange`` is sampled.

        An engine that refuses these, or fails, is asked again without them: no client's request may fail for
        the sample.

        Raises:
            UpstreamError: see ``ask``.
        """
        if not exchange.is_sampled or exchange.shows_logprobs:
            return await ask(body)
        try:
            return await ask({**body, "logprobs": True})
        except (UpstreamRefused, ModelFailed) as error:
            if error.status == 429 or error.code == TOO_LONG:
                raise
            answer = await ask(body)
            self._begins_at = time.monotonic() + REFUSED_SECONDS
            log.warning("logprobs_refused", reason=str(error), asked_again_after_seconds=REFUSED_SECONDS)
            return answer

"""What is remembered of a request once its outcome is known: answered, failed, or left by its client."""

from __future__ import annotations

import random
import time

from tunewheel_contracts.formats.serving import RouteRole

from tunewheel_serve_gateway.chat_request import ChatRequest
from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.ids import CompletionIds
from tunewheel_serve_gateway.completions.log import CompletionLog
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.reconcile import Reconciler
from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.shadow import ShadowCopies
from tunewheel_serve_gateway.upstream.protocol import ModelNotLoaded, UpstreamError


class Outcomes:
    """Puts outcomes on the log and into the metrics, and has answered requests copied to shadows."""

    def __init__(
        self,
        reconciler: Reconciler,
        log: CompletionLog,
        ids: CompletionIds,
        shadows: ShadowCopies,
        metrics: Metrics,
    ) -> None:
        self._reconciler = reconciler
        self._log = log
        self._ids = ids
        self._shadows = shadows
        self._metrics = metrics

    async def answered(
        self, target: Target, request: ChatRequest, exchange: Exchange, started: float
    ) -> None:
        """Return once the log has the answer, which the client does not have whole before."""
        exchange.finish(time.perf_counter() - started)
        self._measure(exchange, "answered")
        await self._log.keep(exchange)
        self._shadows.offer(target, request, exchange)
        self._count_refused(target, request, exchange)

    def _measure(self, exchange: Exchange, outcome: str) -> None:
        metrics, project = self._metrics, exchange.project
        metrics.observe("completion.seconds", exchange.latency_seconds, project=project, outcome=outcome)
        if exchange.first_token_seconds is not None:
            metrics.observe("first_token.seconds", exchange.first_token_seconds, project=project)
        if outcome == "answered":
            metrics.add("completions.answered")
            metrics.add("tokens.prompt", exchange.prompt_tokens, of=project)
            metrics.add("tokens.answered", exchange.said_tokens, of=project)

    def _count_refused(self, target: Target, request: ChatRequest, answered: Exchange) -> None:
        """Log a failed completion of a candidate that the engine will not serve, for its share of what others
        answered. So its rollout ends, with the reason, as one does whose answers fail; no client sees it."""
        table = self._reconciler.table.projects.get(target.project)
        if table is None or target.pinned:
            return
        for refused in table.refused:
            failure = self._reconciler.failures.get(refused.model_id)
            if failure is None or random.random() * 100 >= refused.percent:
                continue
            exchange = Exchange(
                project=refused.project,
                completion_id=self._ids.new(refused.project),
                model_id=refused.model_id,
                role=refused.role,
                messages=(),  # they are with what was answered, under the id that an erasure names
                shadow_of=answered.completion_id if refused.role is RouteRole.SHADOW else None,
                client=answered.client,
                user=answered.user,
                trace=answered.trace,
            )
            exchange.fail(f"cannot be served: {failure.reason}", "model", ours=True)
            exchange.finish(0.0)
            self._log.offer(exchange)

    def shortened(self) -> None:
        """Count a passage that was left out, and with it a request that the engine is sent once more."""
        self._metrics.add("retrieval.shortened")

    async def failed(self, exchange: Exchange, error: BaseException, started: float) -> None:
        """Log what came of a request without a whole answer. A client that left waits for nothing."""
        seconds = time.perf_counter() - started
        if isinstance(error, UpstreamError):
            if error.fault is not None:
                exchange.fail(str(error), error.fault)
            exchange.finish(seconds)
            if error.fault is not None:
                await self._log.keep(exchange)
            if error.fault == "client":  # an application's long prompts are no outage
                self._measure(exchange, "refused")
            elif not isinstance(error, ModelNotLoaded):
                self._metrics.add("completions.failed")
                self._measure(exchange, "failed")
            return
        exchange.cancel()
        exchange.finish(seconds)
        self._measure(exchange, "disconnected")
        self._log.offer(exchange)

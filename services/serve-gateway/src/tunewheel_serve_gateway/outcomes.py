"""Records the outcome of a request: answered, failed, or abandoned by its client."""

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
    """Writes outcomes to the completion log and the metrics, and offers answered requests to shadow
    models."""

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
        """Record an answered request. Returns once the answer is on the disk; only then is the last part of
        it sent to the client."""
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
        """Log failed completions for candidates that no engine can serve.

        Such a candidate gets no requests, so its rollout would never be judged. For its share of the answered
        requests a failed completion is logged under its name, with the reason. The rollout then fails as if
        the candidate's answers had failed. No client is affected.
        """
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
                messages=(),  # The answered completion holds them; an erasure finds them there.
                shadow_of=answered.completion_id if refused.role is RouteRole.SHADOW else None,
                client=answered.client,
                user=answered.user,
                trace=answered.trace,
            )
            exchange.fail(f"cannot be served: {failure.reason}", "model", ours=True)
            exchange.finish(0.0)
            self._log.offer(exchange)

    def shortened(self) -> None:
        """Count a passage that was dropped from a prompt. The request is then sent to the engine again."""
        self._metrics.add("retrieval.shortened")

    async def failed(self, exchange: Exchange, error: BaseException, started: float) -> None:
        """Log a request that failed or whose client left. For a client that left, the log is not waited
        for."""
        seconds = time.perf_counter() - started
        if isinstance(error, UpstreamError):
            if error.fault is not None:
                exchange.fail(str(error), error.fault)
            exchange.finish(seconds)
            if error.fault is not None:
                await self._log.keep(exchange)
            if error.fault == "client":  # An application's faulty requests are no outage.
                self._measure(exchange, "refused")
            elif not isinstance(error, ModelNotLoaded):
                self._metrics.add("completions.failed")
                self._measure(exchange, "failed")
            return
        exchange.cancel()
        exchange.finish(seconds)
        self._measure(exchange, "disconnected")
        self._log.offer(exchange)

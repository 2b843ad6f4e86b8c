"""Records the outcome of a request (answered, failed, or abandoned by its client), and sends a copy of an
answered one to the shadow model."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field, replace
from functools import partial

from tunewheel_contracts.events.production import FALLBACK
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_runtime.waiting import end_all

from tunewheel_serve_gateway.call import Answer
from tunewheel_serve_gateway.chat_request import ChatRequest, Messages
from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.ids import CompletionIds
from tunewheel_serve_gateway.completions.log import CompletionLog
from tunewheel_serve_gateway.completions.overrides import overrides_of
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.output_schema import held_to
from tunewheel_serve_gateway.reconcile import Reconciler
from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream import asking
from tunewheel_serve_gateway.upstream.pool import Pool
from tunewheel_serve_gateway.upstream.protocol import ModelNotLoaded, UpstreamError, UpstreamLost


@dataclass
class Outcomes:
    """Writes outcomes to the completion log and the metrics, and sends copies of answered requests to shadow
    models, whose answers are logged and never sent to a client.

    As many copies run and wait as the settings allow; further ones are dropped and counted.
    """

    pool: Pool
    reconciler: Reconciler
    log: CompletionLog
    ids: CompletionIds
    metrics: Metrics
    settings: Settings
    _copies: dict[asyncio.Task[None], int] = field(default_factory=dict[asyncio.Task[None], int])
    """The shadow copies that run or wait, and the bytes that each holds in memory."""

    def __post_init__(self) -> None:
        self._most_copies = self.settings.shadow_concurrency + self.settings.shadow_backlog
        self._slots = asyncio.Semaphore(self.settings.shadow_concurrency)

    async def close(self) -> None:
        """Cancel the copies that are running or waiting. No client waits for them."""
        await end_all(*self._copies)

    async def answered(self, answer: Answer) -> None:
        """Record an answered request. Returns once the answer is on the disk; only then is the last part of
        it sent to the client."""
        exchange = answer.exchange
        if not exchange.completed_at:  # a refusal's time ends before a fallback was asked in vain
            exchange.finish(answer.seconds)
        self._measure(exchange, "answered")
        if exchange.withheld is not None:
            exchange.withheld.answered_by = exchange.completion_id
        await self._note_withheld(exchange.withheld)
        await self.log.keep(exchange)
        self._offer_copy(answer.target, answer.request, exchange)
        self._count_refused(answer.target, exchange)

    async def _note_withheld(self, exchange: Exchange | None) -> None:
        """Record an answer in whose place another one was to be sent."""
        if exchange is not None:
            self._measure(exchange, "withheld")
            await self.log.keep(exchange)

    def _measure(self, exchange: Exchange, outcome: str) -> None:
        metrics, project = self.metrics, exchange.project
        labels = {
            "project": project,
            "role": FALLBACK if FALLBACK in exchange.overrides else exchange.role.value,
            "model": metrics.label_of(exchange.model_id),
        }
        metrics.observe("completion.seconds", exchange.latency_seconds, **labels, outcome=outcome)
        if exchange.first_token_seconds is not None:
            metrics.observe("first_token.seconds", exchange.first_token_seconds, **labels)
        if outcome == "answered":
            metrics.add("completions.answered")
        if outcome in ("answered", "withheld"):
            if exchange.abstained:
                metrics.add("completions.abstained", of=project)
            metrics.add("tokens.prompt", exchange.prompt_tokens, of=project)
            metrics.add("tokens.answered", exchange.said_tokens, of=project)

    def _count_refused(self, target: Target, answered: Exchange) -> None:
        """Log failed completions for candidates that no engine can serve.

        Such a candidate gets no requests, so its rollout would never be judged. For its share of the answered
        requests a failed completion is logged under its name, with the reason. The rollout then fails as if
        the candidate's answers had failed. No client is affected.
        """
        table = self.reconciler.table.projects.get(target.project)
        if table is None or target.pinned:
            return
        for refused in table.refused:
            failure = self.reconciler.failures.get(refused.model_id)
            if failure is None or random.random() * 100 >= refused.percent:
                continue
            # The answered completion holds the messages; an erasure finds them there.
            exchange = self._exchange_beside(answered, refused, messages=())
            exchange.fail(f"cannot be served: {failure.reason}", "model", ours=True)
            exchange.finish(0.0)
            self.log.offer(exchange)

    async def failed(
        self, exchange: Exchange, error: BaseException, seconds: float, *, is_replaced: bool = False
    ) -> None:
        """Log a request that failed or whose client left after ``seconds``. For a client that left, the log
        is not waited for. ``is_replaced``: the champion is asked instead, so the client does not see the
        failure."""
        if isinstance(error, UpstreamError):
            fault, is_fallback = error.fault, FALLBACK in exchange.overrides
            if is_fallback:
                fault = "engine"  # Whatever it says of the request: the client's refusal tells of no failure.
            elif isinstance(error, UpstreamLost) and (is_replaced or self._is_compared(exchange)):
                fault = "engine"  # The rollout compares how many connections either side loses.
            if fault is not None:
                exchange.fail(str(error), fault)
            exchange.finish(seconds)
            if fault is not None:
                await self._note_withheld(exchange.withheld)
                await self.log.keep(exchange)
            if is_replaced:
                self.metrics.add("completions.replaced")
                self._measure(exchange, "replaced")
            elif fault == "client":  # An application's faulty requests are no outage.
                self._measure(exchange, "refused")
            elif not isinstance(error, ModelNotLoaded):
                self.metrics.add("completions.failed", not is_fallback)
                self._measure(exchange, "failed")
            return
        exchange.cancel()
        exchange.finish(seconds)
        self._measure(exchange, "disconnected")
        for one in filter(None, (exchange.withheld, exchange)):
            self.log.offer(one)

    def _is_compared(self, exchange: Exchange) -> bool:
        """Return whether a rollout compares this answer of the champion with a canary's."""
        table = self.reconciler.table.projects.get(exchange.project)
        is_beside = table is not None and table.canary is not None
        return is_beside and exchange.role is RouteRole.PRODUCTION and not exchange.pinned

    def _offer_copy(self, target: Target, request: ChatRequest, answered: Exchange) -> None:
        """Queue a copy of ``request`` for the shadow of ``target``'s project, if it has one. Does not
        wait."""
        shadow = None if target.pinned or answered.abstained else self._shadow_of(target.project)
        if shadow is None or random.random() * 100 >= shadow.percent:
            return
        held = sum(self._copies.values())
        size = request.size_bytes + answered.size_bytes
        if len(self._copies) >= self._most_copies or held + size > self.settings.shadow_backlog_bytes:
            self.metrics.add("shadow.dropped")
            return
        task = asyncio.create_task(self._copy(shadow, request, answered), name="shadow")
        self._copies[task] = size
        task.add_done_callback(self._copies.pop)

    def _shadow_of(self, project: str) -> Target | None:
        table = self.reconciler.table.projects.get(project)
        return None if table is None else table.shadow

    async def _copy(self, shadow: Target, request: ChatRequest, answered: Exchange) -> None:
        exchange = self._exchange_beside(answered, shadow, request.messages_with(shadow.system_prompt))
        exchange.overrides, exchange.retrieved = overrides_of(request, shadow), request.retrieved
        exchange.schema = shadow.schema if request.is_held_to(shadow) else None
        body = replace(request, stream=False).upstream_body(shadow)
        async with self._slots:
            if self._shadow_of(shadow.project) != shadow:
                # A copy that waited longer than its stage would take the engine from the next stage.
                self.metrics.add("shadow.dropped")
                return
            started = time.perf_counter()
            try:
                ask = partial(asking.complete, self.pool, shadow)
                exchange.take(await held_to(shadow, ask, body))
            except UpstreamError as error:
                if error.fault in (None, "client"):
                    self.metrics.add("shadow.dropped")
                    return
                exchange.fail(str(error), error.fault)
        exchange.finish(time.perf_counter() - started)
        self.metrics.add("shadow.copied")
        self.log.offer(exchange)

    def _exchange_beside(self, answered: Exchange, target: Target, messages: Messages) -> Exchange:
        """Return the exchange of ``target`` for the request that another model ``answered``."""
        return Exchange(
            project=target.project,
            completion_id=self.ids.new(target.project),
            model_id=target.model_id,
            role=target.role,
            messages=messages,
            shadow_of=answered.completion_id if target.role is RouteRole.SHADOW else None,
            client=answered.client,
            user=answered.user,
            trace=answered.trace,
        )

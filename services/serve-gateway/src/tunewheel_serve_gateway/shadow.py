"""Sends copies of answered requests to a shadow model. Its answers are logged and never sent to a client."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace

from tunewheel_contracts.formats.serving import RouteRole

from tunewheel_serve_gateway.chat_request import ChatRequest
from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.ids import CompletionIds
from tunewheel_serve_gateway.completions.overrides import overrides_of
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.reconcile import Reconciler
from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream import asking
from tunewheel_serve_gateway.upstream.pool import Pool
from tunewheel_serve_gateway.upstream.protocol import UpstreamError


class ShadowCopies:
    """Runs and keeps as many copies as the settings allow. Further copies are dropped and counted."""

    def __init__(
        self,
        pool: Pool,
        reconciler: Reconciler,
        record: Callable[[Exchange], object],
        ids: CompletionIds,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._pool = pool
        self._reconciler = reconciler
        self._record = record
        self._ids = ids
        self._metrics = metrics
        self._most = settings.shadow_concurrency + settings.shadow_backlog
        self._most_bytes = settings.shadow_backlog_bytes
        self._slots = asyncio.Semaphore(settings.shadow_concurrency)
        self._tasks: dict[asyncio.Task[None], int] = {}
        """The copies that run or wait, and the bytes that each holds in memory."""

    def offer(self, target: Target, request: ChatRequest, answered: Exchange) -> None:
        """Queue a copy of ``request`` for the shadow of ``target``'s project, if it has one. Does not
        wait."""
        table = self._reconciler.table.projects.get(target.project)
        shadow = table.shadow if table is not None and not target.pinned else None
        if shadow is None or random.random() * 100 >= shadow.percent:
            return
        size = request.size_bytes + answered.size_bytes
        if len(self._tasks) >= self._most or sum(self._tasks.values()) + size > self._most_bytes:
            self._metrics.add("shadow.dropped")
            return
        task = asyncio.create_task(self._copy(shadow, request, answered), name="shadow")
        self._tasks[task] = size
        task.add_done_callback(self._tasks.pop)

    async def close(self) -> None:
        """Cancel the copies that are running or waiting. No client waits for them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _copy(self, shadow: Target, request: ChatRequest, answered: Exchange) -> None:
        exchange = Exchange(
            project=shadow.project,
            completion_id=self._ids.new(shadow.project),
            model_id=shadow.model_id,
            role=RouteRole.SHADOW,
            messages=request.messages_with(shadow.system_prompt),
            shadow_of=answered.completion_id,
            client=answered.client,
            user=answered.user,
            overrides=overrides_of(request, shadow),
            retrieved=request.retrieved,
            trace=answered.trace,
        )
        body = replace(request, stream=False).upstream_body(shadow)
        async with self._slots:
            started = time.perf_counter()
            try:
                exchange.take(await asking.complete(self._pool, shadow, body))
            except UpstreamError as error:
                if error.fault in (None, "client"):
                    self._metrics.add("shadow.dropped")
                    return
                exchange.fail(str(error), error.fault)
        exchange.finish(time.perf_counter() - started)
        self._metrics.add("shadow.copied")
        self._record(exchange)

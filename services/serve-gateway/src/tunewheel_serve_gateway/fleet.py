"""The engines that are reconciled: the listed ones, and the ones behind a name, which come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from tunewheel_serve_gateway.loading import EngineAdapters
from tunewheel_serve_gateway.upstream.discovery import Discovery
from tunewheel_serve_gateway.upstream.endpoint import Endpoint
from tunewheel_serve_gateway.upstream.pool import Pool

log = structlog.get_logger(__name__)


class Fleet:
    """``make`` returns what reconciles an engine, ``left`` is told of one that is gone, ``warn`` of names
    without an address."""

    def __init__(
        self,
        pool: Pool,
        discovery: Discovery,
        make: Callable[[Endpoint], EngineAdapters],
        left: Callable[[Endpoint], None],
        warn: Callable[[str, str | None], None],
    ) -> None:
        self.engines = {endpoint: make(endpoint) for endpoint in pool.endpoints}
        self._pool = pool
        self._discovery = discovery
        self._make = make
        self._left = left
        self._warn = warn
        self._runs: dict[Endpoint, asyncio.Task[None]] = {}
        self._parting: set[asyncio.Task[None]] = set()
        self._is_complete = asyncio.Event()

    @property
    def trouble(self) -> str | None:
        """Why engines cannot be found; None: each name has an address."""
        return self._discovery.trouble

    async def run(self, period_seconds: float) -> None:
        """Reconcile every engine, those too that come later, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._follow(tasks, period_seconds)  # who is listed does not wait for a name server
            while self._discovery.names:
                await self.discover()
                self._follow(tasks, period_seconds)
                self._is_complete.set()
                await asyncio.sleep(period_seconds)
            self._is_complete.set()

    def _follow(self, tasks: asyncio.TaskGroup, period_seconds: float) -> None:
        for endpoint in self.engines.keys() - self._runs.keys():
            run = self.engines[endpoint].run(period_seconds)
            self._runs[endpoint] = tasks.create_task(run, name=f"reconcile {endpoint.name}")

    async def look(self) -> None:
        """Return once every engine was asked for the first time what it has."""
        await self._is_complete.wait()
        await asyncio.gather(*(engine.looked.wait() for engine in self.engines.values()))

    async def discover(self) -> None:
        """Take up the engines that came behind a name, and let those go that are gone."""
        change = await self._discovery.look()
        self._warn("engines_not_found", self.trouble)
        if not change.came and not change.gone:
            return
        for endpoint in change.came:
            log.info("engine_found", engine=endpoint.name)
            self.engines[endpoint] = self._make(endpoint)
        for endpoint in change.gone:
            log.info("engine_gone", engine=endpoint.name)
            engine = self.engines.pop(endpoint)
            self._left(endpoint)
            if (run := self._runs.pop(endpoint, None)) is not None:
                run.cancel()
            task = asyncio.create_task(_part(engine), name=f"part from {endpoint.name}")
            self._parting.add(task)
            task.add_done_callback(self._parting.discard)
        self._pool.change(change.came, change.gone)

    async def close(self) -> None:
        """Give up what is being loaded, and close what is gone."""
        tasks = list(self._parting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for engine in self.engines.values():
            await engine.close()


async def _part(engine: EngineAdapters) -> None:
    """Close the connections to an engine that is gone, once its last answers are given."""
    try:
        await engine.close()
        await engine.endpoint.idle.wait()
    finally:
        await engine.endpoint.client.close()

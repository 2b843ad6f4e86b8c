"""The engines that are reconciled: those listed by address, and those found by name, which come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from tunewheel_runtime.deadletter import Warn
from tunewheel_runtime.waiting import end_all

from tunewheel_serve_gateway.loading import EngineAdapters
from tunewheel_serve_gateway.upstream.discovery import Discovery
from tunewheel_serve_gateway.upstream.endpoint import Endpoint
from tunewheel_serve_gateway.upstream.pool import Pool

log = structlog.get_logger(__name__)


class Fleet:
    """Runs one ``EngineAdapters`` per engine, and follows the changes that ``discovery`` finds.

    ``make`` returns the ``EngineAdapters`` of an engine. ``left`` is called with an engine that is gone,
    ``warn`` with the names that have no address.
    """

    def __init__(
        self,
        pool: Pool,
        discovery: Discovery,
        make: Callable[[Endpoint], EngineAdapters],
        left: Callable[[Endpoint], None],
        warn: Warn,
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
        """The names without an address, and why; None: each name has an address."""
        return self._discovery.trouble

    async def run(self, period_seconds: float) -> None:
        """Reconcile every engine, including those found later, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._follow(tasks, period_seconds)  # Listed engines do not wait for a name server.
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
        """Return once every engine was asked for its models for the first time."""
        await self._is_complete.wait()
        await asyncio.gather(*(engine.looked.wait() for engine in self.engines.values()))

    async def discover(self) -> None:
        """Resolve the names; add the engines at new addresses and remove those whose address is gone."""
        came, gone = await self._discovery.look()
        self._warn("engines_not_found", self.trouble)
        if not came and not gone:
            return
        for endpoint in came:
            log.info("engine_found", engine=endpoint.name)
            self.engines[endpoint] = self._make(endpoint)
        for endpoint in gone:
            log.info("engine_gone", engine=endpoint.name)
            engine = self.engines.pop(endpoint)
            self._left(endpoint)
            if (run := self._runs.pop(endpoint, None)) is not None:
                run.cancel()
            task = asyncio.create_task(_part(engine), name=f"part from {endpoint.name}")
            self._parting.add(task)
            task.add_done_callback(self._parting.discard)
        self._pool.change(came, gone)

    async def close(self) -> None:
        """Stop all loading, and close the connections to engines that are gone."""
        await end_all(*self._parting)
        for engine in self.engines.values():
            await engine.close()


async def _part(engine: EngineAdapters) -> None:
    """Close the connections to an engine that is gone, after its last answers."""
    try:
        await engine.close()
        await engine.endpoint.idle.wait()
    finally:
        await engine.endpoint.client.close()

"""The engines that are reconciled: those listed by address, and those found by name, which come and go.

Each address of a name is one engine. In Kubernetes such a name is a headless Service, whose addresses are its
ready pods.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog
from tunewheel_runtime.deadletter import Warn
from tunewheel_runtime.named_addresses import addresses_behind
from tunewheel_runtime.waiting import end_all

from tunewheel_serve_gateway.loading import EngineAdapters
from tunewheel_serve_gateway.upstream.endpoint import Endpoint
from tunewheel_serve_gateway.upstream.pool import BY_NAME, Pool

log = structlog.get_logger(__name__)
ANSWER_SECONDS = 3.0
"""Longest wait for the name server."""
MISSED = 2
"""An engine is removed after its address was missing this many times in a row."""


class Fleet:
    """Runs one ``EngineAdapters`` per engine of ``pool``, and lets engines come and go with the addresses of
    the pool's names.

    ``make`` returns the ``EngineAdapters`` of an engine. ``left`` is called with an engine that is gone,
    ``warn`` with the names that have no address.
    """

    def __init__(
        self,
        pool: Pool,
        make: Callable[[Endpoint], EngineAdapters],
        left: Callable[[Endpoint], None],
        warn: Warn,
    ) -> None:
        self.engines = {endpoint: make(endpoint) for endpoint in pool.endpoints}
        self._pool = pool
        self._make = make
        self._left = left
        self._warn = warn
        self._runs: dict[Endpoint, asyncio.Task[None]] = {}
        self._parting: set[asyncio.Task[None]] = set()
        self._is_complete = asyncio.Event()
        self._addresses = {name: frozenset[str]() for name in pool.names}
        self._listed = {endpoint.url for endpoint in pool.endpoints}
        self._missed: Counter[Endpoint] = Counter()
        self._troubles: dict[str, str] = {}
        # Threads of its own: a name server that does not answer must not block threads that other work needs.
        self._threads = ThreadPoolExecutor(max(1, len(pool.names)), "names")

    @property
    def trouble(self) -> str | None:
        """The names without an address, and why; None: each name has an address."""
        return "; ".join(f"{name}: {reason}" for name, reason in self._troubles.items()) or None

    async def run(self, period_seconds: float) -> None:
        """Reconcile every engine, including those found later, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._follow(tasks, period_seconds)  # Listed engines do not wait for a name server.
            while self._addresses:
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
        """Resolve the names; add the engines at new addresses and remove those whose address is gone. If the
        name server does not answer, no engine is removed."""
        await asyncio.gather(*(self._resolve(name) for name in self._addresses))
        self._warn("engines_not_found", self.trouble)
        urls = frozenset[str]().union(*self._addresses.values()) - self._listed
        found = {endpoint.url: endpoint for endpoint in self.engines if endpoint.was_found}
        missing = [endpoint for url, endpoint in sorted(found.items()) if url not in urls]
        self._missed = Counter({endpoint: self._missed[endpoint] + 1 for endpoint in missing})
        gone = [endpoint for endpoint in missing if self._missed[endpoint] >= MISSED]
        came = [self._pool.make(url) for url in sorted(urls - found.keys())]
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
        if came or gone:
            self._pool.change(came, gone)

    async def _resolve(self, name: str) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                url = name.removeprefix(BY_NAME)
                asked = asyncio.get_running_loop().run_in_executor(self._threads, addresses_behind, url)
                self._addresses[name] = await asked
        except (OSError, UnicodeError) as error:
            self._troubles[name] = str(error) or f"no answer within {ANSWER_SECONDS:g} s"
            return
        self._troubles.pop(name, None)
        if not self._addresses[name]:
            self._troubles[name] = "has no address; check the name, and that a pod is ready"

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

"""Loads the desired adapters on every engine, and routes only to models that are loaded."""

from __future__ import annotations

import asyncio
import time

import structlog
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_runtime.deadletter import Warn
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.waiting import end_all, within

from tunewheel_serve_gateway.adapter_files import AdapterFiles
from tunewheel_serve_gateway.catalog import Catalog, Version
from tunewheel_serve_gateway.errors import Unavailable
from tunewheel_serve_gateway.fleet import Fleet
from tunewheel_serve_gateway.loading import EngineAdapters
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.on_demand import OnDemand
from tunewheel_serve_gateway.routing import RouteTable, Target, build_table, pinned_version
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream.bases import homes
from tunewheel_serve_gateway.upstream.endpoint import Endpoint
from tunewheel_serve_gateway.upstream.pool import Pool
from tunewheel_serve_gateway.why_not import LASTING_ATTEMPTS, Failure, WhyNot, warning_of

log = structlog.get_logger(__name__)
REMOVE_SECONDS = 60.0


class Reconciler:
    """Owns the route table and one ``EngineAdapters`` per engine of the pool.

    A model gets requests as soon as one engine has loaded it. While no engine can load it, another model may
    stand in; see ``routing``.
    """

    def __init__(
        self,
        catalog: Catalog,
        files: AdapterFiles,
        pool: Pool,
        metrics: Metrics,
        settings: Settings,
        warn: Warn,
    ) -> None:
        self.table = RouteTable()
        self._catalog = catalog
        self._files = files
        self._pool = pool
        self._period = settings.reconcile_seconds
        self._on_demand = OnDemand(settings.on_demand_adapters)
        self._warn = warn
        self._reloads: dict[str, asyncio.Task[None]] = {}
        self._attempts: set[asyncio.Task[None]] = set()

        def adapters_of(endpoint: Endpoint) -> EngineAdapters:
            return EngineAdapters(
                endpoint,
                pool,
                self,
                files,
                metrics,
                adapter_root=settings.adapter_root,
                backoff=Backoff(attempts=1, first=0.5, longest=60.0),
            )

        self._fleet = Fleet(pool, adapters_of, self._on_demand.leave, warn)
        self._why_not = WhyNot(self._fleet.engines, self.wanted)
        pool.changed = self.rebuild
        pool.lost = self._on_lost

    @property
    def engines(self) -> dict[Endpoint, EngineAdapters]:
        return self._fleet.engines

    @property
    def failures(self) -> dict[str, Failure]:
        """See ``WhyNot.failures``."""
        return self._why_not.failures

    @property
    def engine_error(self) -> str | None:
        """The engines that cannot list their models, and why; None: all can."""
        return self._why_not.engines_unheard(self._fleet.trouble)

    def not_served(self, endpoint: Endpoint) -> dict[str, str]:
        """Return why ``endpoint`` does not answer with some of the models that routes name, by model."""
        bundles = self.bundles()
        told = {n: self._why_not.of(endpoint, one, bundles.get(n)) for n, one in self._named().items()}
        return {name: reason for name, reason in told.items() if reason is not None}

    def on_change(self) -> None:
        """Rebuild the route table at once for the changed desired state, and ask every engine for a pass."""
        self.rebuild()
        self.wake()

    def wake(self) -> None:
        """Ask every engine for a pass soon."""
        for engine in self.engines.values():
            engine.changed.set()

    async def run(self) -> None:
        """Reconcile every engine, including those found later, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fleet.run(self._period), name="engines")
            tasks.create_task(self._keep_tidy(), name="adapter files")

    async def look(self, *, timeout_seconds: float) -> None:
        """Return once every engine was asked for its models for the first time, or after the time-out."""
        await within(timeout_seconds, self._fleet.look())

    async def close(self) -> None:
        """Stop all loading."""
        await end_all(*self._reloads.values(), *self._attempts)
        await self._fleet.close()

    async def reconcile(self) -> None:
        """Do one pass over every engine, and delete the files that nobody needs."""
        await asyncio.gather(*(engine.reconcile() for engine in self.engines.values()))
        await self._remove_unneeded()

    async def reload(self, model_id: str) -> None:
        """Load ``model_id`` on the engines that should have it. Concurrent calls share one reload.

        Returns when one engine has loaded it, or when all attempts failed.
        """
        await asyncio.shield(self._begin_reload(model_id))

    async def reloaded(self, model_id: str | None) -> bool:
        """Return once a reload of ``model_id`` is over; False at once where none is under way."""
        task = self._reloads.get(model_id or "")
        if task is not None:
            await asyncio.shield(task)
        return task is not None

    def _begin_reload(self, model_id: str) -> asyncio.Task[None]:
        task = self._reloads.get(model_id)
        if task is None:
            task = self._reloads[model_id] = asyncio.create_task(self._reload(model_id), name="reload")
            task.add_done_callback(lambda _: self._reloads.pop(model_id, None))
        return task

    async def _reload(self, model_id: str) -> None:
        pending = {
            asyncio.create_task(engine.load_again(model_id), name=f"load {model_id}")
            for endpoint, engine in self.engines.items()
            if model_id in self.wanted(endpoint)
        }
        for task in pending:
            self._attempts.add(task)
            task.add_done_callback(self._attempts.discard)
        while pending and model_id not in self._pool.ready():
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    async def on_demand(self, version: Version) -> Target:
        """Return the target of a version that no route names, loaded by one engine. Raises Unavailable: no
        engine can load it now, or no place for it is free."""
        name, pool = version.adapter.model_id, self._pool
        target = pinned_version(version.desired, version.adapter, version.bundle)
        home = pool.up_with(target) or self._home_for(version.adapter)
        self._on_demand.want(version.adapter, home, in_use=lambda one: pool.is_in_use(one))
        home.last_used[name] = time.monotonic()
        if name not in home.ready:
            await self.reload(name)
        if pool.up_with(target) is None:
            reason = self._why_not.of(home, version.adapter, version.bundle)
            raise Unavailable(f"model {name} is not loaded: {reason}", param="model", retry_after="2")
        return target

    def _home_for(self, adapter: AdapterRef) -> Endpoint:
        found = homes(self._pool.endpoints, adapter)
        up = [endpoint for endpoint in found if not endpoint.breaker.is_open] or found
        if not up:
            raise Unavailable(
                f"no engine that can be reached serves {adapter.base.name}, the base of {adapter.model_id}; "
                "name one in TUNEWHEEL_ENGINE_URL",
                param="model",
                retry_after="60",
            )
        failed = {endpoint for endpoint in up if adapter.model_id in self.engines[endpoint].failures}
        return min(up, key=lambda endpoint: (endpoint in failed, endpoint.outstanding))

    def wanted(self, endpoint: Endpoint) -> dict[str, AdapterRef]:
        """Return the adapters that are to be on ``endpoint``."""
        return self._on_demand.on(endpoint) | self.desired(endpoint)

    def desired(self, endpoint: Endpoint) -> dict[str, AdapterRef]:
        """Return the adapters of ``endpoint`` that a route names. Other adapters give way to these."""
        named = self._named().items()
        return {name: one for name, one in named if endpoint in homes(self._pool.endpoints, one)}

    def _named(self) -> dict[str, AdapterRef]:
        """Return the adapters that routes name, and those that stand in for them."""
        routes = (route for project in self._catalog.projects() for route in project.routes)
        named = {route.model_id: route.adapter for route in routes if route.adapter is not None}
        return named | self.table.adapters

    def adapters(self) -> dict[str, AdapterRef]:
        """Return every adapter that this gateway knows."""
        return self._catalog.adapters | self._named()

    def bundles(self) -> dict[str, Bundle]:
        """Return the judged bundle of each model that may be asked for. A route's bundle goes before the
        newest verdict's."""
        projects = self._catalog.projects()
        routes = (route for project in projects for route in (*project.stand_ins, *project.routes))
        named = {r.model_id: r.bundle for r in routes if r.bundle is not None and r.adapter is not None}
        return {**self._catalog.judged, **named}

    def waits(self) -> bool:
        """Return whether a project waits for its model."""
        return any(table.waiting_for is not None for table in self.table.projects.values())

    def evicted(self, model_id: str) -> None:
        """Note that ``model_id`` made room for another model."""
        self._on_demand.drop(model_id)

    def rebuild(self) -> None:
        """Rebuild the route table from the desired state and the loaded models. No I/O."""
        adapters, bundles = self.adapters(), self.bundles()
        for engine in self.engines.values():
            # An engine may have had a model before this gateway heard of the model.
            engine.drop_unfit(adapters, bundles)
        failed = self._why_not.failed_everywhere()
        lasting = {name: one for name, one in failed.items() if one.attempts >= LASTING_ATTEMPTS}
        before = self.table
        self.table = build_table(
            self._catalog.projects(),
            self._pool.ready(),
            before,
            tried=failed,
            failed=lasting,
            refused={name: failure.reason for name, failure in lasting.items() if failure.final},
        )
        self._warn("models_not_loaded", warning_of(lasting))
        for name, table in self.table.projects.items():
            old = before.projects.get(name)
            if old is None or [t.model_id for t in old.targets] != [t.model_id for t in table.targets]:
                serving = {target.role.value: target.model_id for target in table.targets}
                log.info("routes_changed", project=name, **serving, waiting_for=table.waiting_for)

    def _on_lost(self, endpoint: Endpoint, model_id: str) -> None:
        """Start loading ``model_id`` again before the table shows that it is missing. Requests that arrive
        meanwhile then wait for the load."""
        # An engine that is gone may still be giving its last answers.
        if (engine := self.engines.get(endpoint)) is not None:
            engine.changed.set()
        if model_id not in self._pool.ready():
            self._begin_reload(model_id)
        self.rebuild()

    async def _keep_tidy(self) -> None:
        while True:
            await asyncio.sleep(REMOVE_SECONDS)
            await self._remove_unneeded()

    async def _remove_unneeded(self) -> None:
        """Delete the files of adapters that are no longer needed.

        A champion's predecessor is kept, so that a rollback need not download it. While an engine does not
        answer, its loaded models are unknown, so nothing is deleted.
        """
        engines = self._pool.endpoints
        if not engines or any(endpoint.error is not None for endpoint in engines):
            return
        here = {*self._catalog.predecessors, *self._named()}
        for endpoint, engine in self.engines.items():
            here |= {*self.wanted(endpoint), *endpoint.listed, *engine.loads, *engine.loaded_here}
            here |= {*endpoint.in_use}
        try:
            removed = await self._files.remove_except(here)
        except OSError as error:
            log.warning("adapter_files_not_removed", reason=str(error))
            return
        for model_id in removed:
            log.info("adapter_files_removed", model_id=model_id)

"""Brings the engine's adapters in line with what is desired, and routes only to what is loaded."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_runtime.retry import Backoff

from tunewheel_serve_gateway.adapter_files import AdapterFiles, InvalidAdapter
from tunewheel_serve_gateway.catalog import Catalog
from tunewheel_serve_gateway.judged import UnfitEngine, check_engine
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.routing import RouteTable, build_table
from tunewheel_serve_gateway.upstream.protocol import (
    KeyRefused,
    ModelNotLoaded,
    Upstream,
    UpstreamAway,
    UpstreamError,
    UpstreamRefused,
)

log = structlog.get_logger(__name__)
LASTING_ATTEMPTS = 3
"""An adapter that could not be loaded so often is stood in for; one failure may be over in a moment."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an adapter is not loaded, and when (loop time, seconds) it is tried again."""

    attempts: int
    retry_at: float
    reason: str
    final: bool = False
    """Whether the engine, or what was judged, is against it: no time mends that."""


class Reconciler:
    """Owns the route table. One pass at a time: see what the engine has, begin to load what it lacks, rebuild
    the routes, unload and delete what nobody wants. Loads run beside the passes, so that a slow one holds up
    no other project. An adapter that cannot be loaded is retried with backoff and gets no traffic meanwhile;
    see ``routing`` for who answers in its place."""

    def __init__(
        self,
        catalog: Catalog,
        files: AdapterFiles,
        upstream: Upstream,
        metrics: Metrics,
        *,
        adapter_root: Path,
        period_seconds: float = 5.0,
        backoff: Backoff | None = None,
    ) -> None:
        self.table = RouteTable()
        self.failures: dict[str, Failure] = {}
        self.engine_error: str | None = "not asked yet"
        self._catalog = catalog
        self._files = files
        self._upstream = upstream
        self._metrics = metrics
        self._root = adapter_root
        self._period = period_seconds
        self._backoff = backoff or Backoff(attempts=1, first=0.5, longest=60.0)
        self._ready: set[str] = set()
        self._loaded_here: set[str] = set()
        self._in_use: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._one_pass = asyncio.Lock()
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._reloads: dict[str, asyncio.Task[None]] = {}

    def on_change(self) -> None:
        """Route by the changed desired state at once, whatever the engine is doing, and ask for a pass."""
        self._rebuild()
        self.wake()

    def wake(self) -> None:
        """Ask for a pass soon."""
        self._changed.set()

    async def run(self) -> None:
        """Reconcile on every change, when a retry is due, and every period; until cancelled."""
        while True:
            self._changed.clear()
            await self.reconcile()
            # Not wait_for: Python 3.11's loses a cancellation that comes together with the change.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_next()):
                    await self._changed.wait()

    async def close(self) -> None:
        """Give up what is being loaded."""
        tasks = [*self._loads.values(), *self._reloads.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def reload(self, model_id: str) -> None:
        """Have the engine load ``model_id`` again, which it does not know any more; once for all callers.

        Returns when it is loaded, or when the attempt failed.
        """
        task = self._reloads.get(model_id)
        if task is None:
            log.warning("engine_lost_adapter", model_id=model_id)
            task = self._reloads[model_id] = asyncio.create_task(self._reload(model_id), name="reload")
            task.add_done_callback(lambda _: self._reloads.pop(model_id, None))
        await asyncio.shield(task)

    async def _reload(self, model_id: str) -> None:
        self._ready.discard(model_id)
        await self.reconcile()
        load = self._loads.get(model_id)
        if load is not None:
            await asyncio.shield(load)

    @contextlib.contextmanager
    def using(self, model_id: str) -> Iterator[None]:
        """Keep ``model_id`` from being unloaded while it answers."""
        self._in_use[model_id] += 1
        try:
            yield
        finally:
            self._in_use[model_id] -= 1
            if not self._in_use[model_id]:
                del self._in_use[model_id]

    async def reconcile(self) -> None:
        """Do one pass. Nothing that is wrong with engine, store or an adapter escapes from it."""
        async with self._one_pass:
            self._rebuild()
            before = set(self._ready)
            try:
                listed = await self._upstream.list_models()
            except UpstreamError as error:
                self._note_engine(error)
                if not isinstance(error, UpstreamAway):
                    self._load_missing()  # it may fail to answer this question alone
                return
            self._note_engine(None)
            if listed is not None:
                # What was loaded since the question went out is not in the answer.
                self._ready = (listed | self._ready - before) & self._named()
            self._ready -= self._unfit()
            self._rebuild()
            self._load_missing()
            await self._unload_stale(listed)
            await self._remove_unneeded(listed or set())

    def _load_missing(self) -> None:
        for name, adapter in self._wanted().items():
            if name not in self._ready and name not in self._loads and self._is_due(name):
                self._begin_load(name, adapter)

    def _wanted(self) -> dict[str, AdapterRef]:
        routes = (route for project in self._catalog.projects() for route in project.routes)
        desired = {route.model_id: route.adapter for route in routes if route.adapter is not None}
        return desired | self.table.adapters

    def _named(self) -> set[str]:
        """Return every model that is wanted, or may become a stand-in."""
        projects = self._catalog.projects()
        stand_ins = {route.model_id for project in projects for route in project.stand_ins}
        return stand_ins.union(self._catalog.predecessors, self._wanted())

    def _unfit(self) -> set[str]:
        """Return the models that this engine must not serve: by its own word it has another base, revision
        or precision than eval judged them with."""
        return {name for name, bundle in self._bundles().items() if not self._fits(bundle)}

    def _fits(self, bundle: Bundle) -> bool:
        try:
            check_engine(bundle, self._upstream.bases)
        except UnfitEngine:
            return False
        return True

    def _bundles(self) -> dict[str, Bundle]:
        """Return what was judged of each adapter that a route names."""
        projects = self._catalog.projects()
        routes = (route for project in projects for route in (*project.stand_ins, *project.routes))
        return {r.model_id: r.bundle for r in routes if r.bundle is not None and r.adapter is not None}

    def _rebuild(self) -> None:
        lasting = {name: one for name, one in self.failures.items() if one.attempts >= LASTING_ATTEMPTS}
        before = self.table
        self.table = build_table(
            self._catalog.projects(),
            self._ready,
            before,
            failed=lasting,
            refused={name: failure.reason for name, failure in lasting.items() if failure.final},
        )
        for name, table in self.table.projects.items():
            old = before.projects.get(name)
            if old is None or [t.model_id for t in old.targets] != [t.model_id for t in table.targets]:
                serving = {target.role.value: target.model_id for target in table.targets}
                log.info("routes_changed", project=name, **serving, waiting_for=table.waiting_for)

    def _begin_load(self, name: str, adapter: AdapterRef) -> None:
        task = self._loads[name] = asyncio.create_task(self._load(name, adapter), name=f"load {name}")

        def done(_: asyncio.Task[None]) -> None:
            self._loads.pop(name, None)
            self.wake()  # to unload what it replaced, or to know when to try again

        task.add_done_callback(done)

    async def _load(self, model_id: str, adapter: AdapterRef) -> None:
        try:
            if adapter.model_id != model_id:
                raise InvalidAdapter(f"the route to {model_id} names the adapter of {adapter.model_id}")
            bundle = self._bundles().get(model_id)
            if bundle is not None:
                check_engine(bundle, self._upstream.bases)
            folder = await self._files.materialise(adapter)
            await self._load_into_engine(model_id, folder)
        except Exception as error:  # whatever it is, it must not take down those who can answer
            self._note_failure(model_id, error)
            return
        self.failures.pop(model_id, None)
        self._ready.add(model_id)
        self._loaded_here.add(model_id)
        self._metrics.add("adapters.loaded")
        self._rebuild()

    def _note_failure(self, model_id: str, error: Exception) -> None:
        attempts = self.failures[model_id].attempts + 1 if model_id in self.failures else 1
        retry_at = _now() + self._backoff.delay(attempts - 1)
        final = isinstance(error, InvalidAdapter | UnfitEngine | UpstreamRefused)
        self.failures[model_id] = Failure(attempts, retry_at, str(error), final)
        self._metrics.add("adapters.failed")
        unforeseen = None if isinstance(error, TunewheelError | OSError) else error
        log.error(
            "adapter_not_loaded",
            model_id=model_id,
            attempts=attempts,
            reason=str(error) or repr(error),
            exc_info=unforeseen,
        )

    async def _load_into_engine(self, model_id: str, folder: Path) -> None:
        try:
            await self._upstream.load_adapter(model_id, folder)
        except UpstreamRefused as error:
            if "already" not in error.message.lower():
                raise

    async def _unload_stale(self, listed: set[str] | None) -> None:
        """Unload what is ours and wanted no more; what is in the middle of an answer waits a pass. While a
        project waits for its model, another gateway may have a stand-in that nothing here tells of: then only
        what this process loaded goes."""
        wanted = self._wanted()
        self.failures = {name: failure for name, failure in self.failures.items() if name in wanted}
        waits = any(table.waiting_for is not None for table in self.table.projects.values())
        for name in sorted(self._loaded_here if listed is None else listed):
            if name in self._loads or name in self._in_use or not self._is_ours(name):
                continue
            # What is desired may have changed while the one before was unloaded.
            if name in self._wanted() or (waits and name not in self._loaded_here):
                continue
            self._ready.discard(name)  # before, lest a change meanwhile routes to what is about to go
            try:
                await self._upstream.unload_adapter(name)
            except ModelNotLoaded:
                pass
            except UpstreamError as error:
                log.warning("adapter_not_unloaded", model_id=name, reason=str(error))
                if isinstance(error, UpstreamRefused):
                    continue
                return  # it would keep us waiting for each of the others too
            self._loaded_here.discard(name)
            self._metrics.add("adapters.unloaded")
            log.info("adapter_unloaded", model_id=name)

    async def _remove_unneeded(self, listed: set[str]) -> None:
        """Delete the files of adapters that nothing names any more. A champion's predecessor stays, so that a
        rollback need not fetch it."""
        here = {*self._wanted(), *listed, *self._loads, *self._loaded_here, *self._in_use}
        try:
            removed = await self._files.remove_except(here | self._catalog.predecessors)
        except OSError as error:
            log.warning("adapter_files_not_removed", reason=str(error))
            return
        for model_id in removed:
            log.info("adapter_files_removed", model_id=model_id)

    def _is_ours(self, name: str) -> bool:
        """An earlier process of this gateway may have loaded it: then its folder is in our root."""
        return name in self._loaded_here or ("/" not in name and (self._root / name).is_dir())

    def _is_due(self, model_id: str) -> bool:
        failure = self.failures.get(model_id)
        return failure is None or failure.retry_at <= _now()

    def _until_next(self) -> float:
        # What is overdue had to wait for the engine, and waits for the next regular pass.
        dues = [due for failure in self.failures.values() if (due := failure.retry_at - _now()) > 0]
        return max(0.05, min([self._period, *dues]))

    def _note_engine(self, error: UpstreamError | None) -> None:
        reason = None if error is None else str(error)
        if reason == self.engine_error:
            return
        self.engine_error = reason
        if error is None:
            log.info("engine_reached")
        elif isinstance(error, KeyRefused):
            log.error("engine_refuses_key", reason=reason)
        else:
            log.warning("engine_away", reason=reason)


def _now() -> float:
    return asyncio.get_running_loop().time()

"""The adapters of one engine: what it lacks is loaded, what nobody wants is unloaded."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.waiting import end_all, within

from tunewheel_serve_gateway.adapter_files import AdapterFiles, InvalidAdapter
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.upstream.bases import UnfitEngine
from tunewheel_serve_gateway.upstream.endpoint import Endpoint
from tunewheel_serve_gateway.upstream.pool import Pool
from tunewheel_serve_gateway.upstream.protocol import (
    ModelFailed,
    ModelNotLoaded,
    UpstreamAway,
    UpstreamError,
    UpstreamRefused,
)
from tunewheel_serve_gateway.why_not import Failure

if TYPE_CHECKING:
    from tunewheel_serve_gateway.reconcile import Reconciler

log = structlog.get_logger(__name__)
FOUND_SECONDS = 1.0
"""Longest wait for the comparison of models that an engine has loaded already. The gateway's first look at
the engines is not much longer."""
AWAY_SECONDS = 1.0
"""An engine that cannot be reached is looked for this often: its adapters are to be back soon."""
FULL = re.compile(r"no (free|available) .*slot|slots? .*(full|in use|taken)|max_(cpu_)?loras", re.IGNORECASE)
"""Of the words in which engines say that no more adapters fit. vLLM: "No free lora slots"."""

REFUSED_ATTEMPTS = 10
"""From this attempt on, after some minutes, an engine's refusal to load an adapter is final. vLLM has one
answer for nearly every failure, also for those that pass, such as a file that is not there yet."""
NO_SLOT = "no free slot for a whole model"
"""Of the words of ``tunewheel-engine``: whole models fill it, and unloading a LoRA does not help."""


class NoSlot(TunewheelError):
    """The engine has no place for a whole model now."""


class EngineAdapters:
    """One pass at a time: see what the engine has, begin to load what it lacks, unload what nobody wants.
    Loads run beside the passes, so that a slow one holds up no other project; other engines have passes of
    their own. An adapter that cannot be loaded is retried with backoff."""

    def __init__(
        self,
        endpoint: Endpoint,
        pool: Pool,
        wishes: Reconciler,
        files: AdapterFiles,
        metrics: Metrics,
        *,
        adapter_root: Path,
        backoff: Backoff,
    ) -> None:
        self.endpoint = endpoint
        self.failures: dict[str, Failure] = {}
        self.loads: dict[str, asyncio.Task[None]] = {}
        self._comparing: dict[str, asyncio.Task[None]] = {}
        self.loaded_here: set[str] = set()
        self.changed = asyncio.Event()
        self.looked = asyncio.Event()
        """Set once the engine was asked for the first time, whatever it said."""
        self._seen_wanted: set[str] = set()
        self._pool = pool
        self._wishes = wishes
        self._files = files
        self._metrics = metrics
        self._root = adapter_root
        self._backoff = backoff
        self._one_pass = asyncio.Lock()
        self._is_closed = False

    async def run(self, period_seconds: float) -> None:
        """Reconcile on every change, when a retry is due, and every period; until cancelled."""
        while True:
            self.changed.clear()
            await self.reconcile()
            await within(self._until_next(period_seconds), self.changed.wait())

    async def close(self) -> None:
        """Give up what is being loaded. The engine is asked nothing more."""
        self._is_closed = True
        await end_all(*self.loads.values(), *self._comparing.values())

    async def load_again(self, model_id: str) -> None:
        """Return once ``model_id`` is loaded, or the attempt failed, or none is due."""
        await self.reconcile()
        load = self.loads.get(model_id)
        if load is not None:
            await asyncio.shield(load)

    async def reconcile(self) -> None:
        """Do one pass. Nothing that is wrong with engine, store or an adapter escapes from it."""
        async with self._one_pass:
            if self._is_closed:
                return
            self._wishes.rebuild()
            before = set(self.endpoint.ready)
            try:
                listed = await self.endpoint.client.list_models()
            except UpstreamError as error:
                if isinstance(error, UpstreamAway):
                    self.endpoint.comparisons.clear()
                self._pool.note_listing(self.endpoint, error)
                self.looked.set()
                if not isinstance(error, UpstreamAway):
                    self._load_missing()  # it may fail to answer this question alone
                return
            await self._compare_found(listed or set())
            self._take(listed, before)
            self.looked.set()
            self._load_missing()
            await self._unload_stale(listed)

    def _take(self, listed: set[str] | None, before: set[str]) -> None:
        endpoint, wanted = self.endpoint, self._wishes.wanted(self.endpoint)
        endpoint.take_listing(listed, before)
        self._seen_wanted |= wanted.keys() & endpoint.listed
        whole = {name for name, adapter in wanted.items() if endpoint.name_of_whole(adapter) is not None}
        endpoint.ready |= whole
        for name in sorted(before & wanted.keys() - endpoint.ready):
            self._pool.lost(endpoint, name)
        self.drop_unfit(self._wishes.adapters(), self._wishes.bundles())
        for name in endpoint.ready:
            self.failures.pop(name, None)
        self._pool.note_listing(endpoint, None)
        self._wishes.rebuild()

    def drop_unfit(self, adapters: Mapping[str, AdapterRef], bundles: Mapping[str, Bundle]) -> None:
        """Let no model answer that this engine may not serve. By its own word the engine may have another
        base than the model was trained on, or another revision or precision than eval judged the model
        with."""
        for name in self.endpoint.ready & adapters.keys():
            try:
                self.endpoint.check(adapters[name], bundles.get(name))
            except UnfitEngine:
                self.endpoint.ready.discard(name)

    async def _compare_found(self, listed: set[str]) -> None:
        """Begin to compare the answers of models that are loaded, where that is due. Wait a moment for
        models that were loaded before this gateway came, so that their comparison precedes their answers."""
        endpoint, bundles, new = self.endpoint, self._wishes.bundles(), list[asyncio.Task[None]]()
        for name, adapter in self._wishes.adapters().items():
            bundle = bundles.get(name)
            last = endpoint.compared(name, bundle)
            is_busy = name in self.loads or name in self._comparing
            is_there = name in listed or endpoint.name_of_whole(adapter) is not None
            if bundle is not None and last.is_due and is_there and not is_busy:
                task = self._comparing[name] = asyncio.create_task(self._compare(adapter, bundle))
                task.add_done_callback(lambda _, name=name: self._comparing.pop(name))
                new += [task] if not last.again_at else []
        if new:
            await asyncio.wait(new, timeout=FOUND_SECONDS)

    async def _compare(self, adapter: AdapterRef, bundle: Bundle) -> None:
        await self.endpoint.compare(adapter, bundle)
        if self.endpoint.compared(adapter.model_id, bundle).difference is not None:
            self._wishes.rebuild()
            self.changed.set()  # the next pass loads it anew, and notes why if it differs again

    def _load_missing(self) -> None:
        for name, adapter in self._wishes.wanted(self.endpoint).items():
            if adapter.is_whole and not self.endpoint.is_known:
                continue  # it has not said yet whether it takes any
            if name not in self.endpoint.ready and name not in self.loads and self._is_due(name):
                self._begin_load(name, adapter)

    def _begin_load(self, name: str, adapter: AdapterRef) -> None:
        task = self.loads[name] = asyncio.create_task(self._load(name, adapter), name=f"load {name}")

        def done(_: asyncio.Task[None]) -> None:
            self.loads.pop(name, None)
            self.changed.set()  # to unload what it replaced, or to know when to try again

        task.add_done_callback(done)

    async def _load(self, model_id: str, adapter: AdapterRef) -> None:
        try:
            if adapter.model_id != model_id:
                raise InvalidAdapter(f"the route to {model_id} names the adapter of {adapter.model_id}")
            bundle = self._wishes.bundles().get(model_id)
            if self.endpoint.name_of_whole(adapter) is not None:
                self.endpoint.check(adapter, bundle)
            else:
                self.endpoint.identity.check(adapter, bundle)
            self.endpoint.identity.check_takes(adapter)
            if adapter.is_whole:
                await self._make_slot(adapter)
            folder = await self._files.materialise(adapter)
            await self._load_into_engine(model_id, folder)
            if bundle is not None and bundle.fingerprint:
                await self._prove(adapter, bundle)
        except Exception as error:  # whatever it is, it must not take down those who can answer
            self._note_failure(model_id, error)
            return
        self.failures.pop(model_id, None)
        self.endpoint.take_loaded(model_id)
        self.loaded_here.add(model_id)
        self._metrics.add("adapters.loaded")
        self._wishes.rebuild()

    def _note_failure(self, model_id: str, error: Exception) -> None:
        attempts = self.failures[model_id].attempts + 1 if model_id in self.failures else 1
        retry_at = _now() + self._backoff.delay(attempts - 1)
        final = isinstance(error, InvalidAdapter | UnfitEngine)
        # vLLM answers 500 to an adapter that it cannot load: one of too large a rank, of DoRA, a broken file.
        if isinstance(error, UpstreamRefused | ModelFailed) and attempts >= REFUSED_ATTEMPTS:
            final = not FULL.search(str(error))  # slots become free, by themselves or by an operator
        self.failures[model_id] = Failure(attempts, retry_at, str(error), final)
        self._metrics.add("adapters.failed")
        unforeseen = None if isinstance(error, TunewheelError | OSError) else error
        log.error(
            "adapter_not_loaded",
            engine=self.endpoint.name,
            model_id=model_id,
            attempts=attempts,
            reason=str(error) or repr(error),
            exc_info=unforeseen,
        )
        self._wishes.rebuild()

    async def _load_into_engine(self, model_id: str, folder: Path) -> None:
        while True:
            try:
                await self.endpoint.client.load_adapter(model_id, folder)
            except UpstreamError as error:
                if isinstance(error, UpstreamRefused) and "already" in error.message.lower():
                    return
                if not FULL.search(str(error)) or not await self._make_room(model_id, str(error)):
                    raise
            else:
                return

    async def _prove(self, adapter: AdapterRef, bundle: Bundle) -> None:
        """Compare the answers of a model that was just loaded. If they differ, unload the model: the engine
        may have had another one of its name, and the next attempt loads the files anew. Raises
        UnfitEngine."""
        await self.endpoint.compare(adapter, bundle)
        try:
            self.endpoint.check(adapter, bundle)
        except UnfitEngine:
            if adapter.model_id not in self.endpoint.in_use:
                with contextlib.suppress(UpstreamError):
                    await self._unload(adapter.model_id)
            raise

    async def _make_slot(self, adapter: AdapterRef) -> None:
        """Have a slot for a whole model before its files are brought: they are gigabytes. Raises NoSlot: the
        others of the engine are in use."""
        endpoint, name = self.endpoint, adapter.base.name
        loaded = (endpoint.listed | endpoint.ready) & endpoint.identity.whole - {adapter.model_id}
        most = endpoint.identity.most_whole(name)
        if len(loaded) >= most and not await self._make_room(adapter.model_id, NO_SLOT):
            raise NoSlot(f"{NO_SLOT}: {', '.join(sorted(loaded))} are loaded, {most} fit")

    async def _make_room(self, model_id: str, refusal: str) -> bool:
        """Unload the adapter that was used longest ago and that no route names; False where there is none.
        One that somebody asks for by its id takes no place from others that were asked for since. A whole
        model needs the place of another whole model."""
        endpoint, used = self.endpoint, self.endpoint.last_used
        desired = self._wishes.desired(endpoint)
        others = (endpoint.listed | endpoint.ready) - desired.keys() - {model_id}
        if NO_SLOT in refusal:
            others &= endpoint.identity.whole
        idle = [name for name in others if self._may_unload(name, even_recent=model_id in desired)]
        victim = min(idle, key=lambda name: used.get(name, 0.0), default=None)
        if victim is None:
            return False
        if model_id not in desired and used.get(victim, 0.0) > used.get(model_id, 0.0):
            return False
        self._wishes.evicted(victim)
        await self._unload(victim)
        return True

    async def _unload_stale(self, listed: set[str] | None) -> None:
        """Unload what is ours and wanted no more; what is in the middle of an answer waits a pass. While a
        project waits for its model, another gateway may have a stand-in that nothing here tells of: then only
        what this process loaded goes."""
        wanted = self._wishes.wanted(self.endpoint)
        self.failures = {name: failure for name, failure in self.failures.items() if name in wanted}
        waits = self._wishes.waits()
        for name in sorted(self.loaded_here if listed is None else listed):
            if not self._may_unload(name):
                continue
            # What is desired may have changed while the one before was unloaded.
            if name in self._wishes.wanted(self.endpoint) or (waits and name not in self.loaded_here):
                continue
            try:
                await self._unload(name)
            except UpstreamRefused as error:
                log.warning("adapter_not_unloaded", model_id=name, reason=str(error))
            except UpstreamError as error:
                log.warning("adapter_not_unloaded", model_id=name, reason=str(error))
                return  # it would keep us waiting for each of the others too

    async def _unload(self, name: str) -> None:
        self.endpoint.ready.discard(name)  # before, lest a change meanwhile routes to what is about to go
        with contextlib.suppress(ModelNotLoaded):
            await self.endpoint.client.unload_adapter(name)
        self.endpoint.listed -= {name}
        self.endpoint.last_used.pop(name, None)
        self.endpoint.loaded_at.pop(name, None)
        if (last := self.endpoint.comparisons.get(name)) is not None and last.difference is None:
            del self.endpoint.comparisons[name]  # a difference stands until the engine answers as judged
        self.loaded_here.discard(name)
        self._seen_wanted.discard(name)
        self._metrics.add("adapters.unloaded")
        log.info("adapter_unloaded", engine=self.endpoint.name, model_id=name)

    def _may_unload(self, name: str, *, even_recent: bool = False) -> bool:
        """Tell whether an adapter is ours and idle. An earlier process of this gateway may have loaded it:
        then its folder is in our root. So may another gateway, for somebody who asked for it by its id: then
        it was laid out lately."""
        if name in self.loads or name in self.endpoint.in_use:
            return False
        if name in self.loaded_here or name in self._seen_wanted:
            return True
        is_laid_out = "/" not in name and (self._root / name).is_dir()
        return is_laid_out and (even_recent or not self._files.is_recent(name))

    def _is_due(self, model_id: str) -> bool:
        failure = self.failures.get(model_id)
        return failure is None or failure.retry_at <= _now()

    def _until_next(self, period: float) -> float:
        # What is overdue had to wait for the engine, and waits for the next regular pass.
        dues = [due for failure in self.failures.values() if (due := failure.retry_at - _now()) > 0]
        if self.endpoint.is_away:
            dues.append(AWAY_SECONDS)
        return max(0.05, min([period, *dues]))


def _now() -> float:
    return asyncio.get_running_loop().time()

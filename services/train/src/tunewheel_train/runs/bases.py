"""Finds the base model of a run in a process of its own, and pins its commit for each dataset version.

A hub id means the commit that was mirrored first, or else the current commit of its main branch. Without a
pin, a resumed training could get another base than before, and with it another run id.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable, Sequence
from uuid import uuid4
from weakref import WeakValueDictionary

import structlog
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.run import BaseModelFacts, BaseModelRef
from tunewheel_runtime.base_mirror import fetch_base, mirror_base
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.retry import Backoff, retry
from tunewheel_runtime.slots import Slots
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.waiting import first_of

from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Job
from tunewheel_train.progress import Failed, Located
from tunewheel_train.runs.following import ignore
from tunewheel_train.runs.process import Last, Patience, ProcessDied, run_process
from tunewheel_train.runs.starting import BEATS
from tunewheel_train.settings import Settings
from tunewheel_train.shortage import full_disk_fails, oom_kills, out_of_memory

log = structlog.get_logger(__name__)
Base = tuple[BaseModelRef, BaseModelFacts | None]
Demand = Callable[[], None]
"""Raises RunFailed if nobody needs the base any more. Called when the search's turn has come."""


class HubAway(TransientError):
    """The hub does not answer."""


class Bases:
    """Finds base models, one at a time, in processes that the command ``worker`` starts. The projects take
    turns: one that has many versions does not hold back another's."""

    def __init__(self, store: ObjectStore, settings: Settings, worker: Sequence[str]) -> None:
        self._store = store
        self._settings = settings
        self._worker = worker
        self._slots = Slots(1)  # the processes share a cache directory
        self._copies = WeakValueDictionary[str, asyncio.Lock]()
        """By base model: held while it is copied to the store."""

    async def of(self, manifest: DatasetManifest, lease: Lease, demand: Demand = lambda: None) -> Base:
        """Find the base model of a dataset version, and pin the commit if it comes from the hub. All workers
        take the commit that was pinned first.

        A local model is not pinned: it may be corrected and tried again. Its revision is the hash of its
        files, so another content gives another run. ``demand`` raises RunFailed if the version needs no base
        any more. Raises RunFailed, TransientError, Lease.Lost.
        """
        revision = await pinned(self._store, manifest)
        base, facts = await self.search(manifest.project, manifest.spec.base_model, revision, lease, demand)
        if not base.revision.startswith("sha256:"):
            pin = await self._store.first_document(_path(manifest), base)
            if pin.revision != base.revision:
                return await self.of(manifest, lease, demand)
        return base, facts

    async def search(
        self, project: str, name: str, revision: str | None, lease: Lease, demand: Demand = lambda: None
    ) -> Base:
        """Find the base model of a run of ``project``. Retry while the hub does not answer, but not for ever:
        a machine that is always offline looks the same. Raises RunFailed, TransientError, Lease.Lost."""
        backoff = Backoff.of(self._settings, attempts=self._settings.hub_attempts)

        locating = retry(
            lambda: self._locate(project, name, revision, lease, demand), backoff, what="the search"
        )
        try:
            base, _ = await first_of(locating, lease.lost.wait())
        except TransientError as error:
            if isinstance(error.__cause__, HubAway):
                raise RunFailed(field="base_model", reason=str(error)) from error
            raise
        lease.check()
        assert base is not None
        return base

    async def _locate(
        self, project: str, name: str, revision: str | None, lease: Lease, demand: Demand
    ) -> Base:
        """Find the base model in a process of its own: converting one takes gigabytes."""
        cache_dir = self._settings.cache_dir
        async with self._slots.hold(project, lease.lost, job=f"search for {name}"):
            lease.check()
            demand()
            with full_disk_fails():
                wanted = await fetch_base(self._store, name, revision, cache_dir)
            last = await self._last_word(name, wanted)
        if isinstance(last, Located):
            base = BaseModelRef(name=last.name, revision=last.revision)
            if self._settings.mirror_bases:  # without the slot: other searches need not wait for gigabytes
                async with self._copies.setdefault(name, asyncio.Lock()):
                    await mirror_base(self._store, base, last.path, cache_dir, meant=revision is None)
            return base, last.facts
        if not isinstance(last, Failed):
            raise RunFailed(field="base_model", reason="the search ended early")
        if last.unreachable:
            raise HubAway(last.reason)
        if last.out_of_memory:
            raise RunFailed(
                field="base_model",
                reason="cannot be converted in this machine's memory; add memory, or choose a smaller model",
            )
        raise RunFailed(field=last.field, reason=last.reason)

    async def _last_word(self, name: str, revision: str | None) -> Last:
        """Search until a process reports a result. Raises RunFailed if the process dies every time: that is
        no outage, and must not block other runs."""
        attempts = self._settings.train_attempts
        for attempt in range(1, attempts + 1):
            kills = oom_kills()
            try:
                return await self._locating_process(name, revision)
            except ProcessDied as error:
                log.warning("search_died", base_model=name, attempt=attempt, error=str(error))
                if error.code == -signal.SIGKILL and oom_kills() > kills:
                    return out_of_memory()
                if attempt == attempts:
                    raise RunFailed(
                        field="base_model",
                        reason=f"could not be loaded: {attempts} processes that looked for it died, the "
                        f"last: {error}",
                    ) from error
        raise AssertionError("unreachable: attempts is at least one")

    async def _locating_process(self, name: str, revision: str | None) -> Last:
        # a directory of its own: on a shared volume, processes would read each other's job
        directory = self._settings.runs_dir.parent / "locating" / uuid4().hex
        job = Job(
            run_id="locate", base_model=name, base_revision=revision, cache_dir=self._settings.cache_dir,
            train_path=directory, output_dir=directory, work_dir=directory,
            alive_seconds=self._settings.silent_seconds / BEATS,
        )  # fmt: skip

        try:
            return await run_process(
                "locate", job, directory=directory, threads=self._settings.threads_of_a_run,
                stop=asyncio.Event(), stop_seconds=1.0, on_message=ignore, worker=self._worker,
                patience=Patience(self._settings.silent_seconds, self._settings.stuck_seconds),
            )  # fmt: skip
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def pinned(store: ObjectStore, manifest: DatasetManifest) -> str | None:
    """Return the commit that is pinned for this version; None: it was not found on the hub yet. Raises
    TransientError: the store is away."""
    found = await store.document(_path(manifest), BaseModelRef)
    return found.revision if found is not None else None


def _path(manifest: DatasetManifest) -> str:
    return f"bases/{manifest.dataset_id}.json"

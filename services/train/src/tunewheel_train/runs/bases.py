"""The base model of a run, found by a process of its own, and the commit that a dataset version keeps of it.

A hub id names whatever its main branch holds. Without a pin a version whose training is taken up again would
be trained on another base than before, under the name of another run.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Sequence
from uuid import uuid4

import structlog
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.run import BaseModelFacts, BaseModelRef
from tunewheel_runtime.retry import Backoff, retry
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.waiting import first_of

from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Job
from tunewheel_train.progress import Failed, Located
from tunewheel_train.runs.attempts import Lease
from tunewheel_train.runs.following import ignore
from tunewheel_train.runs.preparing import BEATS
from tunewheel_train.runs.process import Last, Patience, ProcessDied, run_process
from tunewheel_train.runs.shortage import oom_kills, out_of_memory
from tunewheel_train.settings import Settings

log = structlog.get_logger(__name__)
Base = tuple[BaseModelRef, BaseModelFacts | None]


class Bases:
    """Finds base models, one at a time, in processes started as ``worker``."""

    def __init__(self, store: ObjectStore, settings: Settings, worker: Sequence[str]) -> None:
        self._store = store
        self._settings = settings
        self._worker = worker
        self._turn = asyncio.Lock()

    async def of(self, manifest: DatasetManifest, lease: Lease) -> Base:
        """Locate the base model of a dataset version, and remember the commit of one that came from the hub.
        One that lies on this machine may be mended and tried again: its revision is the hash of its files,
        and names another run. Raises RunFailed, TransientError, Lease.Lost."""
        revision = await pinned(self._store, manifest)
        base, facts = await self.search(manifest.spec.base_model, revision, lease)
        if not base.revision.startswith("sha256:"):
            await self._store.first(_path(manifest), base.model_dump_json().encode())
        return base, facts

    async def search(self, name: str, revision: str | None, lease: Lease) -> Base:
        """Locate the base model, again and again while the hub does not answer, but not for ever: that a
        machine is offline for good looks the same. Raises RunFailed, TransientError, Lease.Lost."""
        backoff = Backoff.of(self._settings, attempts=self._settings.hub_attempts)
        locating = retry(lambda: self._locate(name, revision), backoff, what="the search")
        try:
            base, _ = await first_of(locating, lease.lost.wait())
        except TransientError as error:
            raise RunFailed(field="base_model", reason=str(error)) from error
        lease.check()
        assert base is not None
        return base

    async def _locate(self, name: str, revision: str | None) -> Base:
        """Find the base model in a process of its own: converting one takes gigabytes."""
        async with self._turn:  # they share a directory
            last = await self._last_word(name, revision)
        if isinstance(last, Located):
            return BaseModelRef(name=last.name, revision=last.revision), last.facts
        if not isinstance(last, Failed):
            raise RunFailed(field="base_model", reason="the search ended early")
        if last.unreachable:
            raise TransientError(last.reason)
        if last.out_of_memory:
            raise RunFailed(field="base_model", reason="cannot be converted in this machine's memory")
        raise RunFailed(field=last.field, reason=last.reason)

    async def _last_word(self, name: str, revision: str | None) -> Last:
        """Search until a process lives to say what it found. Raises RunFailed: one that dies each time is no
        outage, and must not keep the service from other runs."""
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
        # of its own: processes that share a volume would read each other's job
        directory = self._settings.runs_dir.parent / "locating" / uuid4().hex
        job = Job(
            run_id="locate", base_model=name, base_revision=revision, cache_dir=self._settings.cache_dir,
            train_path=directory, output_dir=directory, work_dir=directory,
            alive_seconds=self._settings.silent_seconds / BEATS,
        )  # fmt: skip

        try:
            return await run_process(
                "locate", job, directory=directory, threads=self._settings.train_threads,
                stop=asyncio.Event(), stop_seconds=1.0, on_message=ignore, worker=self._worker,
                patience=Patience(self._settings.silent_seconds, self._settings.stuck_seconds),
            )  # fmt: skip
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def pinned(store: ObjectStore, manifest: DatasetManifest) -> str | None:
    """Return the commit that an earlier look at the hub found for this version; None before the first.

    Raises:
        TransientError: the store is away.
    """
    data = await store.read(_path(manifest))
    return BaseModelRef.model_validate_json(data).revision if data is not None else None


def _path(manifest: DatasetManifest) -> str:
    return f"bases/{manifest.dataset_id}.json"

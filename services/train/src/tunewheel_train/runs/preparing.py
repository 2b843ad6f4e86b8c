"""Downloads what a run needs from the object store to this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_planner.calibration import Correction
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Job
from tunewheel_train.runs.runs import Run, read_dataset
from tunewheel_train.runs.starting import FIELD, fetch_start
from tunewheel_train.settings import Settings

BEATS = 60
"""A process that misses so many signs of life counts as dead."""


async def fetch_dataset(store: ObjectStore, event: DatasetVersioned) -> DatasetManifest:
    """Fetch the manifest that ``event`` points to.

    Raises:
        InvalidEvent: the store has no such manifest, or it does not fit the event; see ``read_dataset``.
        TransientError: the store is away.
    """
    try:
        return read_dataset(event, await store.get(event.manifest))
    except (ArtifactMissing, CorruptArtifact) as error:
        raise InvalidEvent(field="manifest", reason=str(error)) from error


async def prepare(
    run: Run,
    store: ObjectStore,
    settings: Settings,
    directory: Path,
    corrections: Mapping[str, Correction],
) -> Job:
    """Download the training data and the adapter to continue from to ``directory``, and return the job with
    their paths. Raises RunFailed, TransientError."""
    await asyncio.to_thread((directory / "work").mkdir, parents=True, exist_ok=True)
    train_path = await _fetch(store, directory, run.train, "dataset.train")
    preferences = run.preferences if run.recipe.preference else None
    preferences_path = (
        await _fetch(store, directory, preferences, "dataset.preferences") if preferences else None
    )
    unpaired = run.recipe.preference and run.recipe.preference.method.traits.unpaired
    # Other methods cannot use them. Without pairs they still get them, for a better error message.
    negatives = run.negatives if unpaired or (run.recipe.preference and not preferences) else None
    negatives_path = await _fetch(store, directory, negatives, "dataset.negatives") if negatives else None
    start_from = await fetch_start(store, run, directory / "start")
    learnt = run.start.learnt if run.start else None
    learnt_path = await _fetch(store, directory, learnt, FIELD) if learnt else None
    return Job(
        run_id=run.run_id, base_model=run.base.name, base_revision=run.base.revision,
        train_path=train_path, preferences_path=preferences_path, negatives_path=negatives_path,
        start_from=start_from, learnt_path=learnt_path,
        output_dir=directory / "adapter", work_dir=directory / "work",
        cache_dir=settings.cache_dir, gpus=settings.asked_gpus, dtype=settings.train_dtype,
        devices=settings.devices, sharding=settings.train_sharding,
        processes=settings.processes_asked, base_parameters=run.base_facts and run.base_facts.parameters,
        alive_seconds=settings.silent_seconds / BEATS, stuck_seconds=settings.stuck_seconds,
        corrections=dict(corrections), recipe=run.recipe,
    )  # fmt: skip


async def _fetch(store: ObjectStore, directory: Path, ref: ArtifactRef, field: str) -> Path:
    try:
        data = await store.get(ref)
    except (ArtifactMissing, CorruptArtifact) as error:
        raise RunFailed(field=field, reason=f"{error}; build the dataset again") from error
    path = directory / f"{ref.sha256[:20]}.parquet"
    await asyncio.to_thread(path.write_bytes, data)
    return path

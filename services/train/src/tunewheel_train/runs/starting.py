"""Decides whether a run continues from the champion, and downloads what a run needs to this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path, PurePosixPath

from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetManifest, ExampleFormat
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.recipe import CHAMPION, TrainSpec
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef, Start
from tunewheel_planner.calibration import Correction
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Job
from tunewheel_train.runs import adapters
from tunewheel_train.runs.runs import Run, read_dataset
from tunewheel_train.settings import Settings

ChampionOf = Callable[[str], Awaitable[str | None]]
"""Returns the model in production of a project; None: there is none."""
FIELD = "train.continue_from"
_SHAPE = ("method", "rank", "alpha", "rslora", "dora", "target_modules")
_FILES = ("adapter_config.json", "adapter_model.safetensors", "tunewheel.json")


async def decided(store: ObjectStore, manifest: DatasetManifest) -> Start | None:
    """Return the decision for a dataset version; None: there is none yet, or the recipe asks for none. Raises
    TransientError."""
    if manifest.spec.train.continue_from != CHAMPION:
        return None
    return await store.document(_path(manifest), Start)


async def decide_start(
    store: ObjectStore, manifest: DatasetManifest, base: BaseModelRef, champion_of: ChampionOf | None
) -> Start | None:
    """Decide once how the run of ``manifest`` on ``base`` begins; None: the recipe does not continue from the
    champion. A later champion changes nothing: the run's id follows from the decision.

    Raises TransientError.
    """
    if manifest.spec.train.continue_from != CHAMPION:
        return None
    start = await decided(store, manifest)
    if start is None:
        try:
            champion = await champion_of(manifest.project) if champion_of else None
            start = await _from(store, manifest, base, champion)
        except (RunFailed, ArtifactMissing, CorruptArtifact, InvalidEvent, ValidationError) as error:
            start = Start(reason=str(getattr(error, "reason", None) or error))
        start = await store.first_document(_path(manifest), start)
    return start


async def _from(
    store: ObjectStore, manifest: DatasetManifest, base: BaseModelRef, champion: str | None
) -> Start:
    """Return the start from ``champion``, or from nothing with the reason. Raises RunFailed if its adapter
    does not fit."""
    found = await adapters.find_model(store, champion) if champion else None
    if found is None:
        return Start(reason=f"{champion or 'no model'} is in production, and no run of it is in the store")
    recipe = manifest.spec.train
    _demand_base(found.adapter, recipe, base)
    earlier = DatasetManifest.model_validate_json(await store.get(found.dataset))
    changed = [f"train.{name}" for name in _SHAPE if getattr(recipe, name) != getattr(found.recipe, name)]
    changed += ["task"] if manifest.spec.task != earlier.spec.task else []
    if changed:
        return Start(reason=f"{', '.join(changed)} changed since {champion} was trained")
    rows, learnt = [_ids(await store.get(part.train)) for part in (manifest, earlier)]
    if gone := learnt - rows:
        return Start(reason=f"{len(gone)} of {len(learnt)} rows that {champion} learned from are taken back")
    if not rows - learnt:
        return Start(reason=f"{champion} learned from all rows")
    return Start(model_id=found.adapter.model_id, learnt=earlier.train)


def _ids(parquet: bytes) -> set[str]:
    """Return the ids of a version's own rows. General instruction data may be drawn anew for each version."""
    import polars as pl

    frame = pl.read_parquet(parquet)
    own = pl.col("format") != ExampleFormat.REPLAY if "format" in frame.columns else pl.lit(True)
    return set(frame.filter(own)["example_id"])


def _path(manifest: DatasetManifest) -> str:
    return f"starts/{manifest.dataset_id}.json"


async def fetch_start(store: ObjectStore, run: Run, directory: Path) -> Path | None:
    """Download the adapter that the recipe continues from to ``directory``; None: the recipe names none.

    Raises RunFailed if the project has no such adapter, if it belongs to another base or to another form of
    it, or if it is damaged. Raises TransientError.
    """
    model_id = run.start.model_id if run.start else run.recipe.continue_from
    if model_id is None:
        return None
    if not model_id.startswith(f"{run.project[:50]}-"):
        raise RunFailed(
            field=FIELD, reason=f"{model_id} is no model of {run.project}; name a model of this project"
        )
    found = await adapters.find_model(store, model_id)
    if found is None:
        raise RunFailed(
            field=FIELD, reason=f"{model_id} is not in the store; name the model_id of a completed run"
        )
    if found.project != run.project:  # "helpdesk-eu-…" also begins with "helpdesk-"
        raise RunFailed(
            field=FIELD, reason=f"{model_id} is a model of {found.project}; name one of {run.project}"
        )
    adapter = found.adapter
    _demand_base(adapter, run.recipe, run.base)
    wanted = [ref for ref in adapter.files if PurePosixPath(ref.path).name in _FILES]
    try:
        return await store.fetch_directory(wanted, adapter.path, directory)
    except (ArtifactMissing, CorruptArtifact) as error:
        reason = f"{model_id} is damaged in the store: {error}; restore the file, or remove {FIELD}"
        raise RunFailed(field=FIELD, reason=reason) from error


def _demand_base(adapter: AdapterRef, recipe: TrainSpec, base: BaseModelRef) -> None:
    if adapter.is_whole:
        raise RunFailed(
            field=FIELD,
            reason=f"{adapter.model_id} is a whole model and no adapter; name an adapter, or remove it",
        )
    if adapter.base.revision != base.revision:
        raise RunFailed(
            field=FIELD,
            reason=f"{adapter.model_id} was trained on {adapter.base.name} at {adapter.base.revision}, this "
            f"run's base is {base.name} at {base.revision}; name an adapter of it, or remove it",
        )
    if adapter.quantization != recipe.method.traits.quantization:
        of_adapters = (method for method in TrainMethod if method.traits.adapter)
        fitting = next(m for m in of_adapters if m.traits.quantization == adapter.quantization)
        raise RunFailed(
            field=FIELD,
            reason=f"{adapter.model_id} was trained on a base that is "
            f"{adapter.quantization or 'unquantised'}; "
            f"train by method {fitting}, or remove it",
        )


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
    run: Run, store: ObjectStore, settings: Settings, directory: Path, corrections: Mapping[str, Correction]
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
        processes=settings.processes_asked,
        base_parameters=run.base_facts.parameters if run.base_facts else None,
        alive_seconds=settings.silent_seconds / BEATS, stuck_seconds=settings.stuck_seconds,
        corrections=dict(corrections), recipe=run.recipe, tried=run.tried, rewarded=run.rewarded,
        chat_template_kwargs=run.chat_template_kwargs,
    )  # fmt: skip


async def _fetch(store: ObjectStore, directory: Path, ref: ArtifactRef, field: str) -> Path:
    try:
        data = await store.get(ref)
    except (ArtifactMissing, CorruptArtifact) as error:
        raise RunFailed(field=field, reason=f"{error}; build the dataset again") from error
    path = directory / f"{ref.sha256[:20]}.parquet"
    await asyncio.to_thread(path.write_bytes, data)
    return path

"""The adapter that a run goes on from, brought here and held against the run's base."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path, PurePosixPath

from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_runtime.store import ObjectStore

from tunewheel_train.errors import RunFailed
from tunewheel_train.runs.runs import Run

FIELD = "train.continue_from"
_FILES = ("adapter_config.json", "adapter_model.safetensors", "tunewheel.json")


async def fetch_start(store: ObjectStore, run: Run, directory: Path) -> Path | None:
    """Bring the adapter that the recipe continues from to ``directory``; None where it starts anew.

    Raises RunFailed when there is no such adapter of this project, or it belongs to another base or to
    another form of it. Raises TransientError.
    """
    model_id = run.recipe.continue_from
    if model_id is None:
        return None
    if not model_id.startswith(f"{run.project[:50]}-"):
        raise RunFailed(
            field=FIELD, reason=f"{model_id} is no model of {run.project}; name one of this project"
        )
    paths = {PurePosixPath(path).name: path for path in await store.list(f"adapters/{model_id}")}
    if not set(_FILES) <= set(paths):
        raise RunFailed(
            field=FIELD, reason=f"{model_id} is not in the store; name the model_id of a completed run"
        )
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    for name in _FILES:
        content = await store.read(paths[name])
        if name == "tunewheel.json":
            _demand_base(model_id, json.loads(content or b"{}"), run)
        await asyncio.to_thread((directory / name).write_bytes, content or b"")
    return directory


def _demand_base(model_id: str, told: dict[str, object], run: Run) -> None:
    if told.get("base_revision") != run.base.revision:
        raise RunFailed(
            field=FIELD,
            reason=f"{model_id} was trained on {told.get('base_model')} at {told.get('base_revision')}, this "
            f"run's base is {run.base.name} at {run.base.revision}; name an adapter of it, or remove it",
        )
    quantization = "nf4" if run.recipe.method is TrainMethod.QLORA else None
    if told.get("quantization") != quantization:
        raise RunFailed(
            field=FIELD,
            reason=f"{model_id} was trained on a base that is {told.get('quantization') or 'unquantised'}; "
            f"train by method {'lora' if quantization else 'qlora'}, or remove it",
        )

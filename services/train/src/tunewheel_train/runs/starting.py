"""Downloads the adapter that a run continues from, and checks that it fits the run's base."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_train.errors import RunFailed
from tunewheel_train.runs import adapters
from tunewheel_train.runs.runs import Run

FIELD = "train.continue_from"
_FILES = ("adapter_config.json", "adapter_model.safetensors", "tunewheel.json")


async def fetch_start(store: ObjectStore, run: Run, directory: Path) -> Path | None:
    """Download the adapter that the recipe continues from to ``directory``; None: the recipe names none.

    Raises RunFailed if the project has no such adapter, if it belongs to another base or to another form of
    it, or if it is damaged. Raises TransientError.
    """
    model_id = run.recipe.continue_from
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
    _demand_base(adapter, run)
    wanted = [ref for ref in adapter.files if PurePosixPath(ref.path).name in _FILES]
    try:
        return await store.fetch_directory(wanted, adapter.path, directory)
    except (ArtifactMissing, CorruptArtifact) as error:
        reason = f"{model_id} is damaged in the store: {error}; restore the file, or remove {FIELD}"
        raise RunFailed(field=FIELD, reason=reason) from error


def _demand_base(adapter: AdapterRef, run: Run) -> None:
    if adapter.method is TrainMethod.FULL:
        raise RunFailed(
            field=FIELD,
            reason=f"{adapter.model_id} is a whole model and no adapter; name an adapter, or remove it",
        )
    if adapter.base.revision != run.base.revision:
        raise RunFailed(
            field=FIELD,
            reason=f"{adapter.model_id} was trained on {adapter.base.name} at {adapter.base.revision}, this "
            f"run's base is {run.base.name} at {run.base.revision}; name an adapter of it, or remove it",
        )
    quantization = "nf4" if run.recipe.method is TrainMethod.QLORA else None
    if adapter.quantization != quantization:
        raise RunFailed(
            field=FIELD,
            reason=f"{adapter.model_id} was trained on a base that is "
            f"{adapter.quantization or 'unquantised'}; "
            f"train by method {'lora' if quantization else 'qlora'}, or remove it",
        )

"""Fully trained models that a wheel is to serve: each has an engine, started on the model's files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.topics import SERVING_DESIRED

from tunewheel_cli.reading import read_latest


def whole_models(desired: Iterable[ServingDesired]) -> list[AdapterRef]:
    """Return the whole models among those that routes name, by id. Stand-ins get no engine: it holds a whole
    model's memory."""
    named = (route.adapter for one in desired for route in one.desired.routes)
    found = {ref.model_id: ref for ref in named if ref is not None and ref.method is TrainMethod.FULL}
    return [found[name] for name in sorted(found)]


async def lay_out(options: Mapping[str, Any], store_url: str, folder: Path) -> dict[str, Path]:
    """Return the folder of each whole model that is to be served, by the model's id: whole and verified.

    Raises:
        TransientError: Kafka or the store is away.
        ArtifactMissing, CorruptArtifact: the store lacks the files, or holds others.
    """
    latest = await read_latest(options, SERVING_DESIRED)
    models = whole_models(event.data for event in latest.values())
    return {ref.model_id: await fetched(ref, store_url, folder) for ref in models}


async def fetched(ref: AdapterRef, store_url: str, folder: Path) -> Path:
    """Return where the files of ``ref`` lie below ``folder``. The gateway knows the model by that name."""
    from tunewheel_runtime.store import ObjectStore

    return await ObjectStore(store_url).fetch_directory(ref.files, ref.path, folder / ref.model_id)

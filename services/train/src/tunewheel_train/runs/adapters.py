"""A finished adapter on its way into the object store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.store import ArtifactConflict, ObjectStore

from tunewheel_train.runs.runs import Result, Run, make_adapter, make_manifest


async def find(store: ObjectStore, run: Run) -> tuple[RunManifest, ArtifactRef] | None:
    """The manifest of ``run`` if it was completed before, by whomever. Raises TransientError."""
    content = await store.read(run.manifest_path)
    if content is None:
        return None
    ref = ArtifactRef(path=run.manifest_path, sha256=content_sha256(content), size_bytes=len(content))
    return RunManifest.model_validate_json(content), ref


async def publish(
    store: ObjectStore, run: Run, directory: Path, result: Result
) -> tuple[RunManifest, ArtifactRef]:
    """Upload the adapter, then the manifest, whose creation decides: the first complete upload wins.

    Returns the winner, which is somebody else's when another worker was faster. Raises TransientError.
    """
    path, files = await _upload(store, run, directory)
    manifest = make_manifest(run, make_adapter(run, result.recipe, path, files), result)
    try:
        ref = await store.put(run.manifest_path, manifest.model_dump_json(indent=1).encode())
    except ArtifactConflict:
        winner = await find(store, run)
        assert winner is not None
        return winner
    return manifest, ref


async def _upload(store: ObjectStore, run: Run, directory: Path) -> tuple[str, tuple[ArtifactRef, ...]]:
    try:
        return run.adapter_path, await store.put_directory(run.adapter_path, directory)
    except ArtifactConflict:
        # A worker elsewhere, with other rounding, got part of its adapter here and did not finish it:
        # nothing is overwritten, so this one goes beside it.
        path = f"{run.adapter_path}.{await asyncio.to_thread(_digest, directory)}"
        return path, await store.put_directory(path, directory)


def _digest(directory: Path) -> str:
    """Twelve hex digits over the names and contents of the files in ``directory``."""
    return content_sha256({f.name: content_sha256(f.read_bytes()) for f in directory.iterdir()})[:12]

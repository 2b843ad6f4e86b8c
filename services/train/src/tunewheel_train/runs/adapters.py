"""A finished adapter on its way into the object store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tunewheel_basemodel.digest import sha256_file
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_contracts.identity import canonical_json, content_sha256
from tunewheel_runtime.store import ArtifactConflict, ObjectStore

from tunewheel_train.runs.runs import Result, Run, make_adapter, make_manifest, manifest_path

CONTENTS = "contents.json"
"""Beside an adapter's files: their names and SHA-256, written before any of them."""


async def find(store: ObjectStore, run: Run) -> tuple[RunManifest, ArtifactRef] | None:
    """The manifest of ``run`` if it was completed before, by whomever. Raises TransientError."""
    content = await store.read(run.manifest_path)
    if content is None:
        return None
    ref = ArtifactRef(path=run.manifest_path, sha256=content_sha256(content), size_bytes=len(content))
    return RunManifest.model_validate_json(content), ref


async def find_model(store: ObjectStore, model_id: str) -> RunManifest | None:
    """The manifest of the completed run that made ``model_id``, whose digits its run's begin with; None where
    there is none. Raises TransientError."""
    digits = model_id.rpartition("-")[2]
    for run_id in await store.folders("runs"):
        if run_id.startswith(f"run-{digits}") and (content := await store.read(manifest_path(run_id))):
            manifest = RunManifest.model_validate_json(content)
            if manifest.adapter.model_id == model_id:
                return manifest
    return None


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
    """Put the files up a part at a time: a whole model is larger than memory. Whoever first says below a path
    what is to lie there has the path, so that nothing is overwritten by anything else."""
    contents = await asyncio.to_thread(_contents, directory)
    path = run.adapter_path
    try:
        await store.put(f"{path}/{CONTENTS}", canonical_json(contents))
    except ArtifactConflict:
        # A worker elsewhere, with other rounding, has begun to put its adapter here: this one goes beside it.
        path = f"{path}.{content_sha256(contents)[:12]}"
    refs = [
        await store.put_file(f"{path}/{name}", directory / name, sha256=sha256)
        for name, sha256 in contents.items()
    ]
    return path, tuple(refs)


def _contents(directory: Path) -> dict[str, str]:
    """Path below ``directory`` and SHA-256 of each of its files."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {file.relative_to(directory).as_posix(): sha256_file(file) for file in files}

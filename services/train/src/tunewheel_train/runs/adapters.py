"""Publishes a finished adapter in the object store, and finds published ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tunewheel_contracts.event import decode_data
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_contracts.identity import canonical_json, content_sha256, sha256_file
from tunewheel_runtime.store import ArtifactConflict, ObjectStore

from tunewheel_train.runs.runs import Result, Run, make_adapter, make_manifest, manifest_path

CONTENTS = "contents.json"
"""The list of an adapter's files with their SHA-256. It is written before the files."""


async def find(store: ObjectStore, run: Run) -> tuple[RunManifest, ArtifactRef] | None:
    """Return the manifest of ``run`` if any worker completed it before. Raises TransientError."""
    content = await store.read(run.manifest_path)
    if content is None:
        return None
    ref = ArtifactRef(path=run.manifest_path, sha256=content_sha256(content), size_bytes=len(content))
    return decode_data(RunManifest, content), ref


async def find_model(store: ObjectStore, model_id: str) -> RunManifest | None:
    """Return the manifest of the completed run that made ``model_id``; None: there is none. The run's id
    begins with the digits of the model's. Raises TransientError."""
    digits = model_id.rpartition("-")[2]
    for run_id in await store.folders("runs"):
        if run_id.startswith(f"run-{digits}") and (content := await store.read(manifest_path(run_id))):
            manifest = decode_data(RunManifest, content)
            if manifest.adapter.model_id == model_id:
                return manifest
    return None


async def publish(
    store: ObjectStore, run: Run, directory: Path, result: Result
) -> tuple[RunManifest, ArtifactRef]:
    """Upload the adapter, then create the manifest. If another worker created it first, that manifest counts.

    Returns the manifest that counts. Raises TransientError.
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
    """Upload the files in parts, since a whole model may be larger than memory. The worker that first writes
    the list of files (``CONTENTS``) below a path owns the path, so nothing is overwritten."""
    contents = await asyncio.to_thread(_contents, directory)
    path = run.adapter_path
    try:
        await store.put(f"{path}/{CONTENTS}", canonical_json(contents))
    except ArtifactConflict:
        # Another worker, with other rounding, has begun to upload its adapter here: use another path.
        path = f"{path}.{content_sha256(contents)[:12]}"
    refs = [
        await store.put_file(f"{path}/{name}", directory / name, sha256=sha256)
        for name, sha256 in contents.items()
    ]
    return path, tuple(refs)


def _contents(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of each file, by its path below ``directory``."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {file.relative_to(directory).as_posix(): sha256_file(file) for file in files}

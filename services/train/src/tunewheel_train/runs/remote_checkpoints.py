"""Copies checkpoints to the object store and back, so that another machine can continue a run.

    runs/<run_id>/checkpoints/checkpoint-000020.<12 hex of its manifest's hash>/…

The name has the content's hash. So objects are never overwritten, and two workers' checkpoints of the same
step do not collide. The manifest is uploaded last; a checkpoint without a manifest is ignored.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import structlog
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_train.trainers import checkpoints

log = structlog.get_logger(__name__)


async def upload(store: ObjectStore, prefix: str, directory: Path, *, keep: int) -> None:
    """Upload the checkpoint ``directory`` below ``prefix``, and before it the best one by validation, unless
    it is there. Of those up to its step, keep only the newest ``keep`` and the best one there.

    A checkpoint that the training process has deleted in the meantime is skipped. The hashes are those of the
    manifest: whoever downloads the checkpoint compares them. Raises TransientError.
    """
    manifest = await asyncio.to_thread(_manifest_of, directory)
    if manifest is None:
        return
    there = {_step_of(name) for name, files in (await _listed(store, prefix)).items() if _is_whole(files)}
    best: int | None = manifest.get("best_step")
    if best is not None and best not in there | {manifest["step"]}:
        await _put(store, prefix, directory.with_name(checkpoints.name_of(best)))
    newest = await _put(store, prefix, directory)
    if newest is not None:
        await _prune(store, prefix, newest=newest, keep=keep, best=best)


async def _put(store: ObjectStore, prefix: str, directory: Path) -> str | None:
    """Return the name below ``prefix``; None: it has been deleted in the meantime."""
    manifest = await asyncio.to_thread(_manifest_of, directory)
    if manifest is None:
        return None
    try:
        last = await asyncio.to_thread((directory / checkpoints.MANIFEST).read_bytes)
        name = f"{checkpoints.name_of(manifest['step'])}.{hashlib.sha256(last).hexdigest()[:12]}"
        for file, sha256 in manifest["files"].items():
            await store.put_file(f"{prefix}/{name}/{file}", directory / file, sha256=sha256)
    except FileNotFoundError:
        return None
    await store.put(f"{prefix}/{name}/{checkpoints.MANIFEST}", last)
    return name


def _manifest_of(directory: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = json.loads((directory / checkpoints.MANIFEST).read_text())
    except FileNotFoundError:
        return None
    return manifest


def _is_whole(files: list[str]) -> bool:
    return any(PurePosixPath(path).name == checkpoints.MANIFEST for path in files)


async def _prune(store: ObjectStore, prefix: str, *, newest: str, keep: int, best: int | None) -> None:
    """Delete the checkpoints up to ``newest``, but the newest ``keep`` and the best one by validation. Later
    ones were passed over when the run was resumed, as was another one of the same step."""
    listed = await _listed(store, prefix)
    ages = sorted(((_step_of(name), name == newest, name) for name in listed), reverse=True)
    newest_first = [name for *age, name in ages if age <= [_step_of(newest), True]]
    for name in newest_first[keep:]:
        if _step_of(name) != best:
            await store.delete(listed[name])


async def remove(store: ObjectStore, prefix: str) -> None:
    """Delete the checkpoints of a run that is complete."""
    await store.delete(await store.list(prefix))


async def download(store: ObjectStore, prefix: str, run_dir: Path, method: str) -> int:
    """Download the newest whole checkpoint of ``method`` to ``run_dir``, unless it has one as new. Download
    the best one too. A run that was quantised after a while has checkpoints of two methods.

    Returns the step of the newest whole checkpoint of ``method`` in ``run_dir``; 0: there is none. Raises
    TransientError.
    """
    found = await asyncio.to_thread(checkpoints.latest, run_dir, method)
    local = checkpoints.step_of(found) if found else 0
    listed = sorted((await _listed(store, prefix)).items(), reverse=True)
    for name, files in listed:
        step = _step_of(name)
        if step <= local:
            break
        if await _method_of(store, files) not in (None, method):
            continue
        if await _fetch(store, files, run_dir, checkpoints.name_of(step)):
            await _fetch_best(store, listed, run_dir, checkpoints.name_of(step))
            return step
        log.warning("checkpoint_damaged", checkpoint=name)
    return local


async def _method_of(store: ObjectStore, files: list[str]) -> str | None:
    """Return the method that wrote the checkpoint; None: its state cannot be read, as its hashes will say."""
    content = [await store.read(path) for path in files if PurePosixPath(path).name == checkpoints.STATE]
    try:
        return str(json.loads((content[0] if content else None) or b"")["method"])
    except (ValueError, KeyError, TypeError):
        return None


async def _fetch_best(
    store: ObjectStore, listed: Sequence[tuple[str, list[str]]], run_dir: Path, newest: str
) -> None:
    manifest = await asyncio.to_thread(checkpoints.read_manifest, run_dir / newest)
    best: int | None = (manifest or {}).get("best_step")
    for name, files in listed:
        if best is not None and _step_of(name) == best and checkpoints.name_of(best) != newest:
            await _fetch(store, files, run_dir, checkpoints.name_of(best))


def _step_of(name: str) -> int:
    return checkpoints.step_of(Path(name.partition(".")[0]))


async def _listed(store: ObjectStore, prefix: str) -> dict[str, list[str]]:
    """Return the paths of files by checkpoint name."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in await store.list(prefix):
        below = PurePosixPath(path).relative_to(prefix).parts
        if len(below) == 2:
            by_name[below[0]].append(path)
    return by_name


async def _fetch(store: ObjectStore, files: list[str], run_dir: Path, name: str) -> bool:
    """Download to a scratch directory, and move it into place if every hash matches."""
    scratch = run_dir / f".fetched-{name}"
    await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
    await asyncio.to_thread(scratch.mkdir, parents=True)
    try:
        await _fetch_files(store, files, scratch)
        whole = await asyncio.to_thread(checkpoints.read_manifest, scratch)
        if whole is None or checkpoints.name_of(int(whole["step"])) != name:
            return False
        await asyncio.to_thread(shutil.rmtree, run_dir / name, ignore_errors=True)
        await asyncio.to_thread(scratch.rename, run_dir / name)
        return True
    except (ArtifactMissing, CorruptArtifact, json.JSONDecodeError, KeyError, ValueError):
        return False
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)


async def _fetch_files(store: ObjectStore, files: list[str], scratch: Path) -> None:
    """Download the manifest and the files that it names, in parts: checkpoints may be larger than memory."""
    (manifest,) = (path for path in files if PurePosixPath(path).name == checkpoints.MANIFEST)
    content = await store.read(manifest)
    if content is None:
        raise ArtifactMissing(f"{manifest} is gone")
    known: dict[str, str] = json.loads(content)["files"]
    for path in files:
        name = PurePosixPath(path).name
        if name in known:
            ref = ArtifactRef(path=path, sha256=known[name], size_bytes=0)
            await store.download(ref, scratch / name)
    await asyncio.to_thread((scratch / checkpoints.MANIFEST).write_bytes, content)

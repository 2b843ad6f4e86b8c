"""The mirror of base models in the object store: one machine asks the hub for a base, all others the store.

    bases/<sha256 of the id>/<commit>/…       the files
    bases/<sha256 of the id>/<commit>.json    their hashes; written last, so that a part of a copy is not seen
    bases/<sha256 of the id>/main.json        the commit that the id means: the first one that was mirrored

A run does not need the mirror. If the mirror fails, the log says so, and the hub is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from fnmatch import fnmatch
from pathlib import Path

import structlog
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.fields import ArtifactRef, Frozen
from tunewheel_contracts.formats.run import BASE_FILES, BaseModelRef, is_commit, mirror_of
from tunewheel_contracts.identity import sha256_file

from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

log = structlog.get_logger(__name__)


class MirroredBase(Frozen):
    """The content of ``<commit>.json``."""

    base: BaseModelRef
    files: tuple[ArtifactRef, ...]


async def fetch_base(store: ObjectStore, name: str, revision: str | None, cache_dir: Path) -> str | None:
    """Download the base model ``name`` from the mirror to where ``locate_base_model`` finds it. What an
    earlier call downloaded is verified.

    Return the revision to look for: ``revision``, or if that is None the one that the mirror has for the id.
    None: the mirror has none. Raises OSError: this machine cannot store the files.
    """
    path = f"{mirror_of(name)}/main.json"
    try:
        if revision is None:
            meant = await store.document(path, BaseModelRef)
            revision = meant.revision if meant else None
        if not is_commit(revision):
            return revision
        folder = f"{mirror_of(name)}/{revision}"
        path = f"{folder}.json"
        mirrored = await store.document(path, MirroredBase)
        if mirrored is not None:
            files = [ref for ref in mirrored.files if _is_read(ref.path.removeprefix(f"{folder}/"))]
            await store.fetch_directory(files, folder, cache_dir / folder)
    except TransientError as error:
        log.warning("base_mirror_away", base_model=name, reason=f"{error}; the hub is asked")
    except (ArtifactMissing, CorruptArtifact, ValueError) as error:
        fix = f"delete {path} and the file from the store, and the next run copies them there again"
        log.error("base_mirror_damaged", base_model=name, reason=f"{error}; the hub is asked", fix=fix)
    return revision


async def mirror_base(
    store: ObjectStore, base: BaseModelRef, directory: Path, cache_dir: Path, *, meant: bool
) -> None:
    """Copy ``base``, whose files are in ``directory``, to the store, unless it is there or is not from the
    hub. ``meant``: note that the id means this commit, unless another was noted before."""
    if not is_commit(base.revision):
        return
    folder = f"{mirror_of(base.name)}/{base.revision}"
    try:
        if not await store.exists(f"{folder}.json"):
            files = [
                await _put(store, f"{folder}/{name}", directory / name)
                for name in await asyncio.to_thread(_names, directory)
            ]
            await store.first_document(f"{folder}.json", MirroredBase(base=base, files=tuple(files)))
            await asyncio.to_thread(_link, cache_dir / folder, directory)
        if meant:
            await store.first_document(f"{mirror_of(base.name)}/main.json", base)
    except (TransientError, OSError, ValueError) as error:
        log.warning("base_not_mirrored", base_model=base.name, revision=base.revision, reason=str(error))


def _names(directory: Path) -> list[str]:
    found = (file.relative_to(directory).as_posix() for file in directory.rglob("*") if file.is_file())
    return sorted(name for name in found if _is_read(name))


def _is_read(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in BASE_FILES)


async def _put(store: ObjectStore, path: str, file: Path) -> ArtifactRef:
    size, digest = await asyncio.to_thread(lambda: (file.stat().st_size, sha256_file(file)))
    if not await store.exists(path):  # else an earlier copy was interrupted; each file is written whole
        await store.put_file(path, file, sha256=digest)
    return ArtifactRef(path=path, sha256=digest, size_bytes=size)


def _link(folder: Path, directory: Path) -> None:
    """Let ``fetch_base`` find the files in ``directory``, so that this machine holds them once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.symlink_to(directory.resolve())

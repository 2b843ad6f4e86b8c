"""The mirror of base models in the object store: one machine asks the hub for a base, all others the store.

    bases/<sha256 of the id>/<commit>/…       the files
    bases/<sha256 of the id>/<commit>.json    their hashes; written last, so that a part of a copy is not seen
    bases/<sha256 of the id>/main.json        the commit that the id means: the first one that was mirrored

A run does not need the mirror. If the mirror fails, the log says so, and the hub is asked. Only an id without
a commit needs the store's answer: else one machine would take the mirrored commit, and another the newest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

import structlog
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.fields import ArtifactRef, Frozen
from tunewheel_contracts.formats.run import BASE_FILES, BaseModelRef, is_commit, mirror_of
from tunewheel_contracts.identity import canonical_json, sha256_file

from tunewheel_runtime.files import mark_of, replace_file
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

log = structlog.get_logger(__name__)


class MirroredBase(Frozen):
    """The content of ``<commit>.json``."""

    base: BaseModelRef
    files: tuple[ArtifactRef, ...]


Note = TypeVar("Note", BaseModelRef, MirroredBase)


async def fetch_base(store: ObjectStore, name: str, revision: str | None, cache_dir: Path) -> str | None:
    """Download the base model ``name`` from the mirror to where ``locate_base_model`` finds it. Each file is
    hashed after its download, and again once it has changed. While the mirror is away or damaged, files from
    an earlier call are not checked.

    Return the revision to look for: ``revision``, or if that is None the one that the mirror has for the id.
    None: the mirror has none.

    Raises TransientError: this machine cannot store the files; or ``revision`` is None and the store is away.
    """
    if Path(name).is_absolute():
        return revision
    path = f"{mirror_of(name)}/main.json"
    try:
        if revision is None:
            meant = await _note(store, path, BaseModelRef)
            revision = meant.revision if meant else None
        if not is_commit(revision):
            return revision
        folder = f"{mirror_of(name)}/{revision}"
        path = f"{folder}.json"
        mirrored = await _note(store, path, MirroredBase)
        if mirrored is not None:
            files = [ref for ref in mirrored.files if _is_read(ref.path.removeprefix(f"{folder}/"))]
            await _fetch(store, files, folder, cache_dir)
    except TransientError as error:
        if revision is None:
            raise TransientError(f"{error}; which commit {name} means is not known without it") from error
        log.warning("base_mirror_away", base_model=name, reason=f"{error}; the hub is asked")
    except (ArtifactMissing, CorruptArtifact, ValueError) as error:
        reason = f"{error}; the hub is asked"
        log.error("base_mirror_damaged", base_model=name, reason=reason, fix=fix_of(path))
    except OSError as error:
        fix = "free space there, or set TUNEWHEEL_CACHE_DIR to another disk"
        raise TransientError(f"{cache_dir} cannot store the base {name} ({error}); {fix}") from error
    return revision


async def mirror_base(
    store: ObjectStore, base: BaseModelRef, directory: Path, cache_dir: Path, *, meant: bool
) -> None:
    """Copy ``base``, whose files are in ``directory``, to the store, unless the store has the base or the
    base is not from the hub. Where ``fetch_base`` did not take the base from the store, the store's copy is
    read and mended. ``meant``: note that the id means this commit, unless another was noted before."""
    if not is_commit(base.revision):
        return
    folder, main = f"{mirror_of(base.name)}/{base.revision}", f"{mirror_of(base.name)}/main.json"
    try:
        held = await _sound(store, f"{folder}.json", MirroredBase)
        if held is None or not await asyncio.to_thread(_is_same, cache_dir / folder, directory):
            await _copy(store, base, folder, directory, held)
            await asyncio.to_thread(_link, cache_dir / folder, directory)
        if meant and await _sound(store, main, BaseModelRef) is None:
            await store.first_document(main, base)
    except (TransientError, OSError, ValueError) as error:
        log.warning("base_not_mirrored", base_model=base.name, revision=base.revision, reason=str(error))


async def look_into_mirror(store: ObjectStore) -> tuple[dict[str, str], list[str]]:
    """Look for damage in the mirror. Names and sizes are compared, hashes are not.

    Return by path of each note what is wrong with it or with its files, "" for nothing; and the paths of
    notes that are missing, because a copy runs or was interrupted. Raises TransientError.
    """
    faults: dict[str, str] = {}
    missing: list[str] = []
    for name in await store.folders("bases"):
        paths = await store.list(f"bases/{name}")
        faults |= {path: await _fault(store, path) for path in paths if path.count("/") == 2}
        copies = {"/".join(path.split("/")[:3]) for path in paths if path.count("/") > 2}
        missing += sorted({f"{copy}.json" for copy in copies} - {*paths})
    return faults, missing


def fix_of(path: str) -> str:
    """Return what mends the mirror if the note at ``path``, or a file that it names, is damaged."""
    return f"delete {path} from the store; the next run on this base writes again what is damaged"


async def _fault(store: ObjectStore, path: str) -> str:
    note = None
    try:
        if path.endswith("/main.json"):
            await _note(store, path, BaseModelRef)
        else:
            note = await _note(store, path, MirroredBase)
    except ValueError as error:
        return str(error)
    files = note.files if note is not None else ()
    lost = [ref.path for ref in files if await store.size(ref.path) != ref.size_bytes]
    return f"files are missing or of another size: {', '.join(lost)}" if lost else ""


async def _note(store: ObjectStore, path: str, kind: type[Note]) -> Note | None:
    """Return the note at ``path``; None: there is none. Raises TransientError, and ValueError: it is damaged,
    or about another base."""
    note = await store.document(path, kind)
    if note is not None:
        base = note.base if isinstance(note, MirroredBase) else note
        folder, _, commit = path.removesuffix(".json").rpartition("/")
        if mirror_of(base.name) != folder:
            raise ValueError(f"name is {base.name!r}, and the folder is that of another id")
        if not is_commit(base.revision) or commit not in ("main", base.revision):
            raise ValueError(f"revision is {base.revision!r}, and the note is that of commit {commit}")
    return note


async def _sound(store: ObjectStore, path: str, kind: type[Note]) -> Note | None:
    """Return the note at ``path``; None: there is none. A damaged note is deleted, to be written again."""
    try:
        return await _note(store, path, kind)
    except ValueError:
        await store.delete([path])
        return None


async def _fetch(store: ObjectStore, files: Sequence[ArtifactRef], folder: str, cache_dir: Path) -> None:
    marks = cache_dir / f"{folder}.hashed"
    if await asyncio.to_thread(_are_unchanged, files, cache_dir, marks):
        return
    await store.fetch_directory(files, folder, cache_dir / folder)
    with contextlib.suppress(OSError):  # files that came with a read-only cache are hashed each time
        await asyncio.to_thread(lambda: replace_file(marks, _marks(files, cache_dir)))


def _are_unchanged(files: Sequence[ArtifactRef], cache_dir: Path, marks: Path) -> bool:
    with contextlib.suppress(OSError):  # there are no marks, or they are another user's
        noted = marks.read_bytes()
        return all((cache_dir / ref.path).is_file() for ref in files) and noted == _marks(files, cache_dir)
    return False


def _marks(files: Sequence[ArtifactRef], cache_dir: Path) -> bytes:
    return canonical_json([(ref.path, ref.sha256, *mark_of(cache_dir / ref.path)) for ref in files])


async def _copy(
    store: ObjectStore, base: BaseModelRef, folder: str, directory: Path, held: MirroredBase | None
) -> None:
    """Create, or replace, each object that is not as the file in ``directory``; then the note, if ``held`` is
    not there. Raises ValueError: ``held`` names another content."""
    noted = {ref.path: ref for ref in held.files} if held is not None else {}
    files: list[ArtifactRef] = []
    for name in await asyncio.to_thread(_names, directory):
        file, path = directory / name, f"{folder}/{name}"
        size, digest = await asyncio.to_thread(lambda file=file: (file.stat().st_size, sha256_file(file)))
        ref = ArtifactRef(path=path, sha256=digest, size_bytes=size)
        if noted.get(path, ref) != ref:
            raise ValueError(f"{file} hashes to {digest}; delete it, or {folder}.json, which says otherwise")
        if not await _is_whole(store, ref):
            await store.put_file(path, file, sha256=digest)
        files.append(ref)
    await store.first_document(f"{folder}.json", MirroredBase(base=base, files=tuple(files)))


async def _is_whole(store: ObjectStore, ref: ArtifactRef) -> bool:
    digest = hashlib.sha256()
    try:
        async for part in store.parts(ref):
            digest.update(part)
    except ArtifactMissing:
        return False
    return digest.hexdigest() == ref.sha256


def _names(directory: Path) -> list[str]:
    found = (file.relative_to(directory).as_posix() for file in directory.rglob("*") if file.is_file())
    return sorted(name for name in found if _is_read(name))


def _is_read(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in BASE_FILES)


def _is_same(folder: Path, directory: Path) -> bool:
    return folder.resolve() == directory.resolve()


def _link(folder: Path, directory: Path) -> None:
    """Let ``fetch_base`` find the files in ``directory``, so that this machine holds them once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.symlink_to(directory.resolve())

"""The object store: immutable artifacts, which are created once and verified when they are read.

obstore's create-if-absent is atomic on every backend, but local disks have no compare-and-swap. So objects
are never overwritten. The only exception is ``replace``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, MemoryStore, from_url
from opentelemetry.metrics import Meter, NoOpMeter
from pydantic import BaseModel
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.identity import content_sha256, sha256_file

from tunewheel_runtime.kafka import InvalidSetting
from tunewheel_runtime.store_requests import StoreRequests

M = TypeVar("M", bound=BaseModel)
Paths = list[str]
PART_BYTES = 5 << 20
"""Size of the parts in which large files are read and written; the smallest that S3 allows."""
ABANDONED_SECONDS = 3_600.0
"""A download into which nothing was written for so long is that of a killed process."""


class ArtifactConflict(TunewheelError):
    """The path already holds different content, so the same path was used for two artifacts."""


class CorruptArtifact(TunewheelError):
    """The content does not match the hash in its reference."""


class ArtifactMissing(TunewheelError):
    """There is no object at the reference's path."""


class ObjectStore:
    """Artifacts below one URL: ``file://``, ``s3://``, ``gs://``, ``az://`` or ``memory://``.

    Credentials are read from the environment, from the same variables as the cloud's own tools. ``meter``
    None: requests are not measured. Raises InvalidSetting: the folder of a ``file://`` URL cannot be made.
    """

    def __init__(self, url: str, meter: Meter | None = None) -> None:
        self._requests = StoreRequests(meter or NoOpMeter("store"))
        self.url = url
        self.local_root = local_root_of(url)
        if self.local_root is not None:
            try:
                self.local_root.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = f"the folder {self.local_root} cannot be made: {error.strerror}"
                raise InvalidSetting("store_url", reason) from error
            self.url = self.local_root.as_uri()
            self._store = LocalStore(self.local_root)
        else:
            self._store = MemoryStore() if url.startswith("memory:") else from_url(url)

    async def put(self, path: str, data: bytes) -> ArtifactRef:
        """Create ``path``. Repeating it with the same content is harmless.

        Raises:
            ArtifactConflict: ``path`` holds other content.
            TransientError: the store cannot be reached.
        """
        ref = ArtifactRef(path=path, sha256=content_sha256(data), size_bytes=len(data))
        try:
            with self._requests.one("write", path, answer=AlreadyExistsError) as moved:
                await obstore.put_async(self._store, ref.path, data, mode="create")
                moved(len(data))
        except AlreadyExistsError:
            existing = await self.read(ref.path)
            if existing is None or content_sha256(existing) != ref.sha256:
                raise ArtifactConflict(f"{path} already holds other content") from None
        return ref

    async def first(self, path: str, data: bytes) -> bytes:
        """Create ``path`` with ``data`` if it does not exist. Return its content, which is the same for all
        callers. Raises TransientError: the store cannot be reached."""
        earlier = await self.read(path)
        if earlier is not None:
            return earlier
        try:
            await self.put(path, data)
        except ArtifactConflict:  # Another process created it first.
            return await self.read(path) or data
        return data

    async def replace(self, path: str, data: bytes) -> None:
        """Replace the content of ``path``. Only to remove text from an object that no event refers to, and
        for copies of the log; all other objects are created once. Raises TransientError: the store cannot be
        reached."""
        with self._requests.one("write", path) as moved:
            await obstore.put_async(self._store, path, data, mode="overwrite")
            moved(len(data))

    async def read(self, path: str) -> bytes | None:
        """Return the unverified bytes at ``path``; None where there is no object. Raises TransientError: the
        store cannot be reached."""
        try:
            with self._requests.one("read", path, answer=FileNotFoundError) as moved:
                result = await obstore.get_async(self._store, path)
                data = bytes(await result.bytes_async())
                moved(len(data))
                return data
        except FileNotFoundError:
            return None

    async def document(self, path: str, kind: type[M]) -> M | None:
        """Return the JSON at ``path`` as ``kind``; None where there is no object. Raises TransientError, and
        pydantic's ValidationError."""
        data = await self.read(path)
        return None if data is None else kind.model_validate_json(data)

    async def first_document(self, path: str, value: M) -> M:
        """Create ``path`` with ``value`` as JSON if it does not exist. Return its content, as ``first``
        does."""
        return value.model_validate_json(await self.first(path, value.model_dump_json(indent=1).encode()))

    async def get(self, ref: ArtifactRef) -> bytes:
        """Return the verified bytes of ``ref``. Raises ArtifactMissing, CorruptArtifact, TransientError."""
        data = await self.read(ref.path)
        if data is None:
            raise ArtifactMissing(
                f"{ref.path} is not in {self.url}; check that TUNEWHEEL_STORE_URL is the store that "
                "it was written to"
            )
        if content_sha256(data) != ref.sha256:
            raise CorruptArtifact(f"{ref.path} hashes to {content_sha256(data)}, not to {ref.sha256}")
        return data

    async def put_file(self, path: str, file: Path, *, sha256: str) -> ArtifactRef:
        """Create ``path`` from a file of any size, in parts. The path must be unique to the content, for
        example by holding its hash: an existing object is not compared. Raises TransientError: the store
        cannot be reached."""
        size = await asyncio.to_thread(lambda: file.stat().st_size)
        ref = ArtifactRef(path=path, sha256=sha256, size_bytes=size)
        with self._requests.one("write", path) as moved:
            await obstore.put_async(self._store, ref.path, file, chunk_size=PART_BYTES, max_concurrency=2)
            moved(size)
        return ref

    async def download(self, ref: ArtifactRef, destination: Path) -> None:
        """Write the verified bytes of ``ref`` to ``destination``, in parts. Raises as ``get`` does; after an
        error ``destination`` must not be used."""
        digest = hashlib.sha256()
        with destination.open("wb") as file:
            async for part in self.parts(ref):
                digest.update(part)
                file.write(part)
        if digest.hexdigest() != ref.sha256:
            raise CorruptArtifact(f"{ref.path} hashes to {digest.hexdigest()}, not to {ref.sha256}")

    async def parts(self, ref: ArtifactRef) -> AsyncIterator[bytes]:
        """Yield the unverified bytes of ``ref``, in parts. Raises ArtifactMissing, TransientError."""
        try:
            with self._requests.one("read", ref.path, answer=FileNotFoundError) as moved:
                result = await obstore.get_async(self._store, ref.path)
                async for part in result.stream(min_chunk_size=PART_BYTES):
                    moved(len(part))
                    yield bytes(part)
        except FileNotFoundError as error:
            raise ArtifactMissing(f"{ref.path} is not in {self.url}") from error

    async def exists(self, path: str) -> bool:
        """Return whether there is an object at ``path``."""
        return await self.size(path) is not None

    async def size(self, path: str) -> int | None:
        """Return the size in bytes of the object at ``path``; None where there is no object."""
        try:
            with self._requests.one("find", path, answer=FileNotFoundError):
                return (await obstore.head_async(self._store, path))["size"]
        except FileNotFoundError:
            return None

    async def list(self, prefix: str) -> Paths:
        """Return the paths below ``prefix``, sorted."""
        return sorted(await self.written(prefix))

    async def written(self, prefix: str) -> dict[str, datetime]:
        """Return the paths below ``prefix``, each with its time of modification by the store's clock."""
        times: dict[str, datetime] = {}
        with self._requests.one("list", prefix):
            async for chunk in obstore.list(self._store, prefix):
                times |= {meta["path"]: meta["last_modified"] for meta in chunk}
        return times

    async def read_folder(self, prefix: str) -> dict[str, bytes]:
        """Return the unverified content of all objects below ``prefix``, by path relative to it."""
        found = {path: await self.read(path) for path in await self.list(prefix)}
        return {path.removeprefix(f"{prefix}/"): data for path, data in found.items() if data is not None}

    async def folders(self, prefix: str) -> Paths:
        """Return the names of the folders directly below ``prefix``, sorted."""
        with self._requests.one("list", prefix):
            found = await obstore.list_with_delimiter_async(self._store, prefix)
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])

    async def delete(self, paths: Sequence[str]) -> None:
        """Delete objects that are not artifacts, such as old checkpoints. Missing paths are ignored."""
        for path in paths:
            with (
                contextlib.suppress(FileNotFoundError),
                self._requests.one("delete", path, answer=FileNotFoundError),
            ):
                await obstore.delete_async(self._store, path)

    async def put_directory(self, prefix: str, directory: Path, *, last: str = "") -> tuple[ArtifactRef, ...]:
        """Create every file of ``directory`` below ``prefix``; see ``put`` for errors.

        ``last``: name of the file whose presence says that all others are complete; it is created after them.
        """
        refs: list[ArtifactRef] = []
        files = await asyncio.to_thread(_files_below, directory)
        names = [file.relative_to(directory).as_posix() for file in files]
        for name in sorted(names, key=lambda name: name == last):
            data = await asyncio.to_thread((directory / name).read_bytes)
            refs.append(await self.put(f"{prefix}/{name}", data))
        return tuple(refs)

    async def fetch_directory(self, refs: Iterable[ArtifactRef], prefix: str, destination: Path) -> Path:
        """Download the files of ``refs`` to ``destination`` and verify them. After an error none of them is
        there.

        An existing ``destination`` is complete from an earlier call, and is verified again.

        Raises:
            CorruptArtifact: a file's content is wrong, or its path is outside ``prefix``.
            ArtifactMissing, TransientError
        """
        try:
            wanted = {ref.name_below(prefix): ref for ref in refs}
        except ValueError as error:
            raise CorruptArtifact(str(error)) from error
        if await asyncio.to_thread(_holds, destination, wanted):
            return destination
        await asyncio.to_thread(destination.parent.mkdir, parents=True, exist_ok=True)
        await asyncio.to_thread(_delete_abandoned, destination.parent)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".fetch-") as scratch:
            staged = Path(scratch) / "files"
            for name, ref in wanted.items():
                target = staged / name
                target.parent.mkdir(parents=True, exist_ok=True)
                await self.download(ref, target)  # In parts, because models may be larger than the memory.
            await asyncio.to_thread(_swap_in, staged, destination)
        return destination


def local_root_of(url: str) -> Path | None:
    """Return the folder of a ``file://`` URL; None for other stores."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(unquote(parts.netloc + parts.path)).resolve()
    return Path(url).resolve() if not parts.scheme else None


def _files_below(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _holds(directory: Path, wanted: dict[str, ArtifactRef]) -> bool:
    for name, ref in wanted.items():
        file = directory / name
        if not file.is_file():
            return False
        if sha256_file(file) != ref.sha256:
            return False
    return True


def _delete_abandoned(parent: Path) -> None:
    for scratch in parent.glob(".fetch-*"):
        with contextlib.suppress(FileNotFoundError):  # its process is alive, and has just finished
            newest = max(path.stat().st_mtime for path in (scratch, *scratch.rglob("*")))
            if time.time() - newest >= ABANDONED_SECONDS:
                shutil.rmtree(scratch, ignore_errors=True)


def _swap_in(staged: Path, destination: Path) -> None:
    for number in itertools.count():
        with contextlib.suppress(FileNotFoundError):
            os.replace(destination, staged.parent / f"replaced-{number}")
        try:
            return os.replace(staged, destination)
        except OSError as error:  # another process put the files there, or a link, and was faster
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):  # EEXIST: XFS
                raise

"""The object store: immutable artifacts, created once, verified when read.

obstore's create-if-absent is atomic on every backend; compare-and-swap is missing on local disks, so
nothing here is overwritten, but where text must go (``replace``).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, MemoryStore, from_url
from opentelemetry.metrics import Meter, NoOpMeter
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.identity import content_sha256

from tunewheel_runtime.store_requests import StoreRequests

PART_BYTES = 5 << 20
"""Of what is written or read a part at a time: the smallest that S3 takes."""


class ArtifactConflict(TunewheelError):
    """The path is taken by different content: two causes were given one name."""


class CorruptArtifact(TunewheelError):
    """What was read does not hash to what its reference says."""


class ArtifactMissing(TunewheelError):
    """The reference points to nothing."""


class ObjectStore:
    """Artifacts below one URL: ``file://``, ``s3://``, ``gs://``, ``az://`` or ``memory://``.

    Credentials come from the environment, as the cloud's own tools read them. ``meter`` None: requests are
    not measured.
    """

    def __init__(self, url: str, meter: Meter | None = None) -> None:
        self._requests = StoreRequests(meter or NoOpMeter("store"))
        self.url = url
        self.local_root = local_root_of(url)
        if self.local_root is not None:
            self.local_root.mkdir(parents=True, exist_ok=True)
            self.url = self.local_root.as_uri()
            self._store = LocalStore(self.local_root)
        else:
            self._store = MemoryStore() if url.startswith("memory:") else from_url(url)

    async def put(self, path: str, data: bytes) -> ArtifactRef:
        """Create ``path``, once. Repeating the same content is harmless.

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
        """Create ``path``, or return what was put there first: the same for everybody who asks.

        Raises:
            TransientError: the store cannot be reached.
        """
        earlier = await self.read(path)
        if earlier is not None:
            return earlier
        try:
            await self.put(path, data)
        except ArtifactConflict:  # another process was quicker
            return await self.read(path) or data
        return data

    async def replace(self, path: str, data: bytes) -> None:
        """Write ``data`` over what lies at ``path``, whole: where text must go from an object whose name no
        event holds. Everything else is created once.

        Raises:
            TransientError: the store cannot be reached.
        """
        with self._requests.one("write", path) as moved:
            await obstore.put_async(self._store, path, data, mode="overwrite")
            moved(len(data))

    async def read(self, path: str) -> bytes | None:
        """Return the bytes at ``path`` unverified, or None where there is nothing.

        Raises:
            TransientError: the store cannot be reached.
        """
        try:
            with self._requests.one("read", path, answer=FileNotFoundError) as moved:
                result = await obstore.get_async(self._store, path)
                data = bytes(await result.bytes_async())
                moved(len(data))
                return data
        except FileNotFoundError:
            return None

    async def get(self, ref: ArtifactRef) -> bytes:
        """Return the verified bytes of ``ref``.

        Raises:
            ArtifactMissing, CorruptArtifact, TransientError
        """
        data = await self.read(ref.path)
        if data is None:
            raise ArtifactMissing(f"{ref.path} is not in {self.url}; is this the store it was written to?")
        if content_sha256(data) != ref.sha256:
            raise CorruptArtifact(f"{ref.path} hashes to {content_sha256(data)}, not to {ref.sha256}")
        return data

    async def put_file(self, path: str, file: Path, *, sha256: str) -> ArtifactRef:
        """Create ``path`` from a file of any size, a part at a time. The path must name the content (hold
        its hash, or be promised to it): what lies there already is then the same.

        Raises:
            TransientError: the store cannot be reached.
        """
        size = await asyncio.to_thread(lambda: file.stat().st_size)
        ref = ArtifactRef(path=path, sha256=sha256, size_bytes=size)
        with self._requests.one("write", path) as moved:
            await obstore.put_async(self._store, ref.path, file, chunk_size=PART_BYTES, max_concurrency=2)
            moved(size)
        return ref

    async def download(self, ref: ArtifactRef, destination: Path) -> None:
        """Write the verified bytes of ``ref`` to ``destination``, a part at a time; see ``get`` for errors.
        Where it raises, ``destination`` is not to be used."""
        digest = hashlib.sha256()
        file = destination.open("wb")
        try:
            with file, self._requests.one("read", ref.path, answer=FileNotFoundError) as moved:
                result = await obstore.get_async(self._store, ref.path)
                async for part in result.stream(min_chunk_size=PART_BYTES):
                    digest.update(part)
                    file.write(part)
                    moved(len(part))
        except FileNotFoundError as error:
            raise ArtifactMissing(f"{ref.path} is not in {self.url}") from error
        if digest.hexdigest() != ref.sha256:
            raise CorruptArtifact(f"{ref.path} hashes to {digest.hexdigest()}, not to {ref.sha256}")

    async def exists(self, path: str) -> bool:
        """Tell whether something lies at ``path``."""
        try:
            with self._requests.one("find", path, answer=FileNotFoundError):
                await obstore.head_async(self._store, path)
        except FileNotFoundError:
            return False
        return True

    async def list(self, prefix: str) -> list[str]:
        """Return the paths below ``prefix``, sorted."""
        return sorted(await self.written(prefix))

    async def written(self, prefix: str) -> dict[str, datetime]:
        """Return the paths below ``prefix``, and when each was written last, by the store's clock."""
        times: dict[str, datetime] = {}
        with self._requests.one("list", prefix):
            async for chunk in obstore.list(self._store, prefix):
                times |= {meta["path"]: meta["last_modified"] for meta in chunk}
        return times

    async def read_folder(self, prefix: str) -> dict[str, bytes]:
        """Return what lies below ``prefix``, unverified, by its path there."""
        found = {path: await self.read(path) for path in await self.list(prefix)}
        return {path.removeprefix(f"{prefix}/"): data for path, data in found.items() if data is not None}

    async def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders right below ``prefix``, sorted."""
        with self._requests.one("list", prefix):
            found = await obstore.list_with_delimiter_async(self._store, prefix)
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])

    async def delete(self, paths: Sequence[str]) -> None:
        """Remove what is no artifact, such as an old checkpoint; absent paths are fine."""
        for path in paths:
            with (
                contextlib.suppress(FileNotFoundError),
                self._requests.one("delete", path, answer=FileNotFoundError),
            ):
                await obstore.delete_async(self._store, path)

    async def put_directory(self, prefix: str, directory: Path, *, last: str = "") -> tuple[ArtifactRef, ...]:
        """Create every file of ``directory`` below ``prefix``; see ``put`` for errors.

        ``last`` names the file that vouches for the others: it is not there before they are.
        """
        refs: list[ArtifactRef] = []
        files = await asyncio.to_thread(_files_below, directory)
        names = [file.relative_to(directory).as_posix() for file in files]
        for name in sorted(names, key=lambda name: name == last):
            data = await asyncio.to_thread((directory / name).read_bytes)
            refs.append(await self.put(f"{prefix}/{name}", data))
        return tuple(refs)

    async def fetch_directory(self, refs: Iterable[ArtifactRef], prefix: str, destination: Path) -> Path:
        """Bring the files of ``refs`` to ``destination``, verified, all or none.

        A ``destination`` that is already there was brought whole by an earlier call and is verified again.

        Raises:
            CorruptArtifact: a file's content, or a path outside ``prefix``.
            ArtifactMissing, TransientError
        """
        wanted = {_below(ref.path, prefix): ref for ref in refs}
        if await asyncio.to_thread(_holds, destination, wanted):
            return destination
        await asyncio.to_thread(destination.parent.mkdir, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".fetch-") as scratch:
            staged = Path(scratch) / "files"
            for name, ref in wanted.items():
                target = staged / name
                target.parent.mkdir(parents=True, exist_ok=True)
                await self.download(ref, target)  # a part at a time: whole models are larger than memory
            await asyncio.to_thread(_swap_in, staged, destination)
        return destination


def local_root_of(url: str) -> Path | None:
    """Return the folder that ``url`` names, None where it is of a remote or memory store."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(unquote(parts.netloc + parts.path)).resolve()
    return Path(url).resolve() if not parts.scheme else None


def _files_below(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _below(path: str, prefix: str) -> str:
    if not path.startswith(f"{prefix}/"):
        raise CorruptArtifact(f"{path} does not lie below {prefix}")
    return path[len(prefix) + 1 :]


def _holds(directory: Path, wanted: dict[str, ArtifactRef]) -> bool:
    for name, ref in wanted.items():
        file = directory / name
        if not file.is_file():
            return False
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != ref.sha256:
                return False
    return True


def _swap_in(staged: Path, destination: Path) -> None:
    if destination.exists():
        os.replace(destination, staged.parent / "replaced")
    os.replace(staged, destination)

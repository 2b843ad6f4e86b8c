"""One object per project that builds keep for the next build, in the store beside the record table.

It is a cache and never changes a dataset. If the object is missing, broken or of another version, the build
does the work again. If it cannot be written, the next build does. Neither is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

import structlog
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.store import ObjectStore

Value = TypeVar("Value")

log = structlog.get_logger(__name__)


class ProjectCache:
    """The objects ``caches/<name>/<project>/<subfolder>/<SHA-256>.<ending>``."""

    def __init__(self, store: ObjectStore, name: str, ending: str, subfolder: str = "") -> None:
        self._store, self._name, self._ending, self._subfolder = store, name, ending, subfolder

    async def read(self, project: str, unpacked: Callable[[bytes], Value | None]) -> Value | None:
        """Return the object of ``project``; None: it is missing, or ``unpacked`` cannot read it."""
        try:
            for path in await self._store.list(f"{self._folder(project)}/{self._subfolder}".rstrip("/")):
                data = await self._store.read(path)
                whole = data is not None and hashlib.sha256(data).hexdigest() in path
                value = unpacked(data) if data is not None and whole else None
                if value is not None:
                    return value
                log.warning("cache_unusable", path=path)
                await self._store.delete([path])
        except TransientError as error:
            log.warning("cache_unread", cache=self._name, project=project, error=str(error))
        return None

    async def write(self, project: str, data: bytes) -> None:
        """Replace the object of ``project`` by ``data``."""
        parts = (self._folder(project), self._subfolder, f"{hashlib.sha256(data).hexdigest()}.{self._ending}")
        path = "/".join(part for part in parts if part)
        try:
            old = await self._store.list(self._folder(project))
            if path not in old:
                await self._store.put(path, data)
            await self._store.delete([other for other in old if other != path])
        except TransientError as error:
            log.warning("cache_unwritten", cache=self._name, project=project, error=str(error))

    async def forget(self, project: str) -> None:
        """Delete the object of ``project``.

        Raises:
            TransientError: the store is away.
        """
        await self._store.delete(await self._store.list(self._folder(project)))

    def _folder(self, project: str) -> str:
        return f"caches/{self._name}/{project}"

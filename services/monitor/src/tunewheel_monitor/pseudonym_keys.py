"""The keys of users' pseudonyms: a random key per project, kept in the object store until an erasure.

Scores stay on their topic for its retention and cannot be deleted. So an erasure destroys the key: then
nobody can find out which pseudonyms were the person's. After that all users of the project get new
pseudonyms.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_runtime.store import ObjectStore

FOLDER = "pseudonyms"
KEY_BYTES = 32


@dataclass
class PseudonymKeys:
    """Keys are stored as ``monitor/<project>/pseudonyms/<number>``. The number is that of the erasures before
    the key.

    ``refresh`` reads the erasures to the current end of the log. All methods raise ``TransientError`` if the
    broker or the store cannot be reached.
    """

    store: ObjectStore
    erasures: Erasures
    refresh: Callable[[], Awaitable[None]]
    _held: dict[str, tuple[str, Pseudonyms]] = field(default_factory=dict[str, tuple[str, Pseudonyms]])

    async def of(self, project: str) -> Pseudonyms:
        """Return the project's pseudonyms. They are the same in every process that knows the same
        erasures."""
        path, held = self._path(project), self._held.get(project)
        if held is None or held[0] != path:
            held = self._held[project] = await self._read(project)
        return held[1]

    async def _read(self, project: str) -> tuple[str, Pseudonyms]:
        path = self._path(project)
        key = await self.store.read(path)
        if key is None:
            await self.refresh()  # do not create a key under a number that was destroyed
            path = self._path(project)
            key = await self.store.first(path, secrets.token_bytes(KEY_BYTES))
            await self.refresh()  # an erasure in another process meanwhile did not find this key
            if path != self._path(project):
                await self.store.delete([path])
                return await self._read(project)
        return path, Pseudonyms(project, key.hex())

    async def destroy(self, project: str) -> None:
        """Delete the keys from before the latest known erasure."""
        paths = await self.store.list(f"monitor/{project}/{FOLDER}")
        await self.store.delete([path for path in paths if path < self._path(project)])

    def _path(self, project: str) -> str:
        people = sum(erasure.customer is not None for erasure in self.erasures.of(project))
        return f"monitor/{project}/{FOLDER}/{people:09d}"

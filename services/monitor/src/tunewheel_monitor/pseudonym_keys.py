"""The keys of users' pseudonyms: random, one for each project, in the object store until an erasure.

Scores lie on their topic for its retention and cannot be taken back. An erasure therefore destroys the key:
nobody can tell any more which pseudonyms were the person's. From then on the project's users have others.
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
    """``monitor/<project>/pseudonyms/<number>``: a key is numbered by the people who were erased before it.

    ``refresh`` reads the erasures to the log's present end. All raise ``TransientError`` where the broker or
    the store cannot be reached.
    """

    store: ObjectStore
    erasures: Erasures
    refresh: Callable[[], Awaitable[None]]
    _held: dict[str, tuple[str, Pseudonyms]] = field(default_factory=dict[str, tuple[str, Pseudonyms]])

    async def of(self, project: str) -> Pseudonyms:
        """Return the project's pseudonyms, the same in every process that knows of the same erasures."""
        path, held = self._path(project), self._held.get(project)
        if held is None or held[0] != path:
            held = self._held[project] = await self._read(project)
        return held[1]

    async def _read(self, project: str) -> tuple[str, Pseudonyms]:
        path = self._path(project)
        key = await self.store.read(path)
        if key is None:
            await self.refresh()  # what was destroyed is not made again
            path = self._path(project)
            key = await self.store.first(path, secrets.token_bytes(KEY_BYTES))
            await self.refresh()  # who destroyed this key meanwhile, in another process, found none
            if path != self._path(project):
                await self.store.delete([path])
                return await self._read(project)
        return path, Pseudonyms(project, key.hex())

    async def destroy(self, project: str) -> None:
        """Remove the keys from before the latest erasure that is known."""
        paths = await self.store.list(f"monitor/{project}/{FOLDER}")
        await self.store.delete([path for path in paths if path < self._path(project)])

    def _path(self, project: str) -> str:
        people = sum(erasure.customer is not None for erasure in self.erasures.of(project))
        return f"monitor/{project}/{FOLDER}/{people:09d}"

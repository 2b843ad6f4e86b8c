"""A file of the object store from which an erasure deletes something."""

from __future__ import annotations

from dataclasses import dataclass

from tunewheel_runtime.store import ObjectStore


@dataclass(frozen=True)
class StoredFile:
    """A stored file, and the part of it that stays."""

    path: str
    taken: int
    """The number of outputs that are deleted."""
    left: tuple[str, bytes] | None
    """The new path and content; None: nothing stays."""

    async def rewrite(self, store: ObjectStore) -> None:
        """Write the part that stays, then delete the old file. A repetition finds one of the two."""
        if self.left is not None and self.left[0] == self.path:
            await store.replace(*self.left)
            return
        if self.left is not None:
            await store.first(*self.left)
        await store.delete([self.path])

"""A file of the object store out of which something goes."""

from __future__ import annotations

from dataclasses import dataclass

from tunewheel_runtime.store import ObjectStore


@dataclass(frozen=True)
class StoredFile:
    """A stored file, and what of it stays."""

    path: str
    taken: int
    """Outputs that go."""
    left: tuple[str, bytes] | None
    """The path and content afterwards; None where nothing stays."""

    async def rewrite(self, store: ObjectStore) -> None:
        """Write what stays, then remove what was there. A repetition finds one of the two."""
        if self.left is not None and self.left[0] == self.path:
            await store.replace(*self.left)
            return
        if self.left is not None:
            await store.first(*self.left)
        await store.delete([self.path])

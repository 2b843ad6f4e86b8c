"""Stores the general regression set by which runs are judged, under the hash of its content.

A plan names its set. So a run that was planned before an upgrade, or before the operator chose another set,
is judged by the set of its plan.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.regression_items import RegressionItem, parse_items, read_items
from tunewheel_contracts.identity import canonical_json, content_id
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore


class RegressionSet:
    """The set that new plans name."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._items: tuple[RegressionItem, ...] = ()
        self._ref: ArtifactRef | None = None

    @property
    def ref(self) -> ArtifactRef:
        assert self._ref is not None, "take() comes first"
        return self._ref

    async def take(self, path: Path | None) -> None:
        """Read the set at ``path``, by default the one that comes with Tunewheel, and store it.

        Raises:
            ValueError: it is malformed.
            TransientError: the store cannot be reached.
        """
        self._items = await asyncio.to_thread(read_items, path)
        lines = [canonical_json(item.model_dump(mode="json")) + b"\n" for item in self._items]
        data = b"".join(lines)
        self._ref = await self._store.put(f"regression/{content_id('set', data)}.jsonl", data)

    async def items(self, ref: ArtifactRef | None) -> tuple[RegressionItem, ...]:
        """Return the items of a plan's set. ``ref`` is None in plans of an earlier release: use the set of
        ``take``.

        Raises:
            InvalidEvent: the set is gone from the store.
        """
        if ref is None or ref == self._ref:
            return self._items
        try:
            return parse_items((await self._store.get(ref)).decode(), name=ref.path)
        except (ArtifactMissing, CorruptArtifact) as error:
            raise InvalidEvent(
                field="plan.regression", reason=f"cannot be used: {error}; restore it"
            ) from error

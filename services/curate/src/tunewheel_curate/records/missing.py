"""Notes records that were removed from the log before they reached the record table.

The log of records should be kept for ever. If its beginning was removed, a table that had not read it, or
that is rebuilt, lacks those records. Every version is then smaller, and no funnel says why. So each such gap
is noted in the object store, and reported at every start and in every later version.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tunewheel_contracts.topics import RECORD_INGESTED
from tunewheel_runtime.store import ObjectStore

FOLDER = "missing-records"
_PATH = re.compile(FOLDER + r"/(\d+)-(\d+)-(\d+)\.json")


class Gap(NamedTuple):
    """Offsets [``first``, ``end``) of one partition of ``record.ingested`` that nobody can read any more."""

    partition: int
    first: int
    end: int

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.partition}-{self.first}-{self.end}.json"


class MissingRecords:
    """The gaps of one store. ``warn`` is called for each, with its name."""

    def __init__(self, store: ObjectStore, warn: Callable[[str, str], None]) -> None:
        self._store = store
        self._warn = warn
        self._gaps: set[Gap] = set()

    @property
    def count(self) -> int:
        """How many records are missing in all projects. Offsets in several gaps count once."""
        total, partition, reached = 0, -1, 0
        for gap in sorted(self._gaps):
            if gap.partition != partition:
                partition, reached = gap.partition, 0
            total += max(0, gap.end - max(gap.first, reached))
            reached = max(reached, gap.end)
        return total

    async def recall(self) -> None:
        """Read the noted gaps. Deleting a note from the store ends its reports at the next start.

        Raises:
            TransientError: the store is away.
        """
        for path in await self._store.list(FOLDER):
            if found := _PATH.fullmatch(path):
                self._remember(Gap(*map(int, found.groups())))

    async def compare(self, *, begins: Mapping[int, int], reached: Mapping[int, int]) -> None:
        """Note for each partition the gap between the offset that the table has ``reached`` and the first
        offset of the log (``begins``). Call this before the table appends: afterwards the gap cannot be
        found.

        Raises:
            TransientError: the store is away.
        """
        for partition, begin in begins.items():
            if (first := reached[partition]) < begin:
                gap = Gap(partition, first, begin)
                await self._store.put(gap.path, b"{}")
                self._remember(gap)

    def _remember(self, gap: Gap) -> None:
        if gap in self._gaps:
            return
        self._gaps.add(gap)
        text = (
            f"{gap.end - gap.first} records of {RECORD_INGESTED.name}, partition {gap.partition}, offsets "
            f"{gap.first} to {gap.end - 1}, were removed from the log before they were read: dataset "
            f"versions are smaller for it. Publish their sources again, then remove {gap.path} from the store"
        )
        self._warn(gap.path, text)

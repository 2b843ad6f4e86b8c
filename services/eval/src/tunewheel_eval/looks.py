"""Counts the looks at a holdout. Whoever picks the best of many models by the same rows fits them by chance;
so each verdict spends a tenth of alpha, and a row that ten verdicts rest on is not judged by any more.

Two evaluations of one project may run at once. So a look is noted first and counted afterwards: of two that
want the tenth look, whoever counts second sees both, and leaves the rows out. A row may thus be given up one
look early, where both counted after both had noted; eleven verdicts never rest on it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.look import LOOKS, Look, look_path, looks_folder
from tunewheel_runtime.store import ObjectStore

SPENT = "looked at too often"
"""The reason in ``Scorecard.left_out``."""
WORN_OUT = (
    f"every held-out row was looked at for {LOOKS} verdicts and tells nothing any more; publish new records "
    "and build another version, which holds out others"
)


@dataclass(frozen=True)
class Fresh:
    """The held-out rows that may still be judged by."""

    examples: tuple[ChatExample, ...]
    looks: int
    """How often the most seen of them was looked at, this time included."""
    spent: int
    """Rows left out."""


class Looks:
    """Reads and writes the looks of every project. A look is created once, so each is read once by a process
    and then only counted."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """By project and group."""
        self._counted: set[str] = set()
        """Paths of looks that are in the counts."""

    async def fresh(self, examples: Sequence[ChatExample], *, project: str, scorecard_id: str) -> Fresh:
        """Return what of ``examples`` was not looked at too often; after ``take`` what that one noted."""
        own = await self._read(look_path(project, scorecard_id))
        if own is not None:
            seen = set(own.groups)
            kept = tuple(one for one in examples if one.group in seen)
            return Fresh(kept, own.looks, len(examples) - len(kept))
        counts = await self._count(project)
        kept = tuple(one for one in examples if counts[one.group] < LOOKS)
        most = max((counts[one.group] for one in kept), default=0)
        return Fresh(kept, most + 1, len(examples) - len(kept))

    async def take(self, fresh: Fresh, *, project: str, scorecard_id: str) -> Fresh:
        """Note that a verdict rests on ``fresh``; return those of its rows that it may rest on, as others may
        have looked since. Noted once, however often this is called."""
        groups = tuple(sorted({one.group for one in fresh.examples}))
        look = Look(project=project, scorecard_id=scorecard_id, groups=groups, looks=fresh.looks)
        await self._store.first(look_path(project, scorecard_id), look.model_dump_json().encode())
        counts = await self._count(project)
        kept = tuple(one for one in fresh.examples if counts[one.group] <= LOOKS)
        return Fresh(kept, fresh.looks, fresh.spent + len(fresh.examples) - len(kept))

    async def _count(self, project: str) -> Counter[str]:
        counts = self._counts[project]
        for path in await self._store.list(looks_folder(project)):
            if path not in self._counted:
                look = await self._read(path)
                if path not in self._counted:  # somebody else may have read it meanwhile
                    self._counted.add(path)
                    counts.update(look.groups if look is not None else ())
        return counts

    async def _read(self, path: str) -> Look | None:
        data = await self._store.read(path)
        try:
            return Look.model_validate_json(data) if data is not None else None
        except ValidationError:  # a damaged file is no look
            return None

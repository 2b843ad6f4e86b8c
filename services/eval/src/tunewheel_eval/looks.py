"""Counts the looks at a holdout. A look is the use of a row for a verdict.

The best of many models on the same rows may be the best by chance. So each verdict uses a tenth of alpha
(``evaluation.looks``), and a row is not used after ten verdicts, nor after a build of curate's retired it.

Two evaluations of a project may run at the same time. So a look is first noted and then counted. If two
evaluations want the tenth look, the one that counts second sees both notes and leaves the rows out. If both
count after both notes, both leave the rows out, one look early. A row is never used for eleven verdicts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.look import Look, Spending, look_path, looks_folder, row_name
from tunewheel_runtime.store import ObjectStore

SPENT = "looked at too often"
"""The reason in ``Scorecard.left_out``."""
WORN_OUT = (
    "every held-out row was looked at for as many verdicts as evaluation.looks allows, is retired, or was "
    "trained on, and tells nothing any more; publish new records and build another version, which holds out "
    "others"
)


@dataclass(frozen=True)
class Fresh:
    """The held-out rows that may still be used for a verdict."""

    examples: tuple[ChatExample, ...]
    looks: int
    """The largest number of looks at any of them, including this one."""
    spent: int
    """The number of rows that are left out."""


class Looks:
    """Reads and writes the looks of all projects. A look never changes, so a process reads each only once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._spending: defaultdict[str, Spending] = defaultdict(Spending)
        """By project: what its rows have spent."""
        self._counted: set[str] = set()
        """The paths of the looks that are counted."""

    async def fresh(
        self, examples: Sequence[ChatExample], *, project: str, scorecard_id: str, of: int
    ) -> Fresh:
        """Return the ``examples`` that were not looked at too often; after ``take``, the rows that it noted.
        ``of``: the number of verdicts that share the significance (``evaluation.looks``)."""
        own = await self._read(look_path(project, scorecard_id))
        if own is not None:
            seen = {*own.groups, *own.rows}
            kept = tuple(one for one in examples if one.group in seen or row_name(one) in seen)
            return Fresh(kept, own.looks, len(examples) - len(kept))
        spending = await self._count(project)
        kept = tuple(one for one in examples if spending.allows(one, 1 / of))
        most = max((spending.of(one) for one in kept), default=0.0)
        return Fresh(kept, round(most * of) + 1, len(examples) - len(kept))

    async def take(self, fresh: Fresh, *, project: str, scorecard_id: str, of: int) -> Fresh:
        """Note that a verdict uses ``fresh``; return the rows that it may use, since others may have looked
        in the meantime. Repeated calls note one look."""
        rows = tuple(sorted({row_name(one) for one in fresh.examples}))
        look = Look(project=project, scorecard_id=scorecard_id, rows=rows, looks=fresh.looks, of=of)
        await self._store.first(look_path(project, scorecard_id), look.model_dump_json().encode())
        spending = await self._count(project)
        kept = tuple(one for one in fresh.examples if spending.allows(one, 0.0))
        return Fresh(kept, fresh.looks, fresh.spent + len(fresh.examples) - len(kept))

    async def _count(self, project: str) -> Spending:
        spending = self._spending[project]
        for path in await self._store.list(looks_folder(project)):
            if path not in self._counted:
                look = await self._read(path)
                if path not in self._counted:  # a concurrent call may have counted it
                    self._counted.add(path)
                    if look is not None:
                        spending.add(look)
        return spending

    async def _read(self, path: str) -> Look | None:
        data = await self._store.read(path)
        try:
            return Look.model_validate_json(data) if data is not None else None
        except ValidationError:  # a damaged file is no look
            return None

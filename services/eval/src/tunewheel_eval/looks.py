"""Counts the looks at a holdout. Whoever picks the best of many models by the same rows fits them by chance;
so each verdict spends a tenth of alpha, and a row that ten verdicts rest on is not judged by any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.look import LOOKS, Look, look_path, looks_by_group, looks_folder
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


async def fresh_rows(
    store: ObjectStore, examples: Sequence[ChatExample], *, project: str, scorecard_id: str
) -> Fresh:
    """Return what of ``examples`` was not looked at too often; after ``count_look`` always the same."""
    own = await _read(store, look_path(project, scorecard_id))
    if own is not None:
        seen = set(own.groups)
        kept = tuple(one for one in examples if one.group in seen)
        return Fresh(kept, own.looks, len(examples) - len(kept))
    looks = [await _read(store, path) for path in await store.list(looks_folder(project))]
    counts = looks_by_group(look for look in looks if look is not None)
    kept = tuple(one for one in examples if counts[one.group] < LOOKS)
    most = max((counts[one.group] for one in kept), default=0)
    return Fresh(kept, most + 1, len(examples) - len(kept))


async def count_look(store: ObjectStore, fresh: Fresh, *, project: str, scorecard_id: str) -> None:
    """Note that a verdict rests on ``fresh``; once, however often this is called."""
    groups = tuple(sorted({one.group for one in fresh.examples}))
    look = Look(project=project, scorecard_id=scorecard_id, groups=groups, looks=fresh.looks)
    await store.first(look_path(project, scorecard_id), look.model_dump_json().encode())


async def _read(store: ObjectStore, path: str) -> Look | None:
    data = await store.read(path)
    try:
        return Look.model_validate_json(data) if data is not None else None
    except ValidationError:  # a damaged file is no look
        return None

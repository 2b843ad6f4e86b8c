"""Retires groups of the holdout after too many verdicts: they are never judged nor trained on again.

Eval counts the uses of a group in the store, not on the log. So the first attempt at a build writes the
groups that it retires to ``builds/<build id>/retired.json``, and every other attempt retires the same groups.
"""

from __future__ import annotations

import json

from pydantic import ValidationError
from tunewheel_contracts.formats.look import LOOKS, Look, looks_by_group, looks_folder
from tunewheel_contracts.identity import canonical_json
from tunewheel_runtime.store import ObjectStore


async def pinned_retired(store: ObjectStore, build_id: str, project: str) -> tuple[str, ...]:
    """Return the pseudonyms of the groups that the build named ``build_id`` retires.

    Raises:
        TransientError: the store is away.
    """
    path = f"builds/{build_id}/retired.json"
    if (pinned := await store.read(path)) is not None:
        return tuple(json.loads(pinned))
    looks = [await _read(store, name) for name in await store.list(looks_folder(project))]
    counts = looks_by_group(look for look in looks if look is not None)
    worn = sorted(group for group, count in counts.items() if count >= LOOKS)
    return tuple(json.loads(await store.first(path, canonical_json(worn))))


async def _read(store: ObjectStore, path: str) -> Look | None:
    try:
        return Look.model_validate_json(await store.read(path) or b"")
    except ValidationError:  # a damaged file is no look
        return None

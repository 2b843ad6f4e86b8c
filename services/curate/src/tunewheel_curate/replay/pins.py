"""Keeps general data in the store when a build first reads it: the source may change, the version must
not."""

from __future__ import annotations

import asyncio
import json

from tunewheel_contracts.fields import Frozen, Sha256
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.spec import ReplaySpec
from tunewheel_contracts.identity import canonical_json, content_sha256
from tunewheel_runtime.store import CorruptArtifact, ObjectStore

from tunewheel_curate.replay.mixing import ReplayPool
from tunewheel_curate.replay.sources import read_replay


class ReplayPin(Frozen):
    """``builds/<build id>/replay.json``: a build uses the conversations at ``replay/<sha256>.jsonl``."""

    sha256: Sha256


async def pinned_replay(
    store: ObjectStore, build_id: str, spec: ReplaySpec, allowed: AllowedSources
) -> ReplayPool:
    """Return the conversations for the build ``build_id``. The first attempt reads the source and keeps them;
    every other attempt uses the kept ones.

    Raises:
        InvalidSpec, SourceAway: see ``read_replay``.
        CorruptArtifact: what was kept is damaged or gone.
    """
    path = f"builds/{build_id}/replay.json"
    if (data := await store.read(path)) is not None:
        return await _kept(store, ReplayPin.model_validate_json(data))
    pool = await asyncio.to_thread(read_replay, spec, allowed)
    lines = b"".join(canonical_json(turns) + b"\n" for turns in pool.conversations)
    await store.put(_path(pool.sha256), lines)
    data = await store.first(path, ReplayPin(sha256=pool.sha256).model_dump_json().encode())
    pin = ReplayPin.model_validate_json(data)
    # Another attempt may have read the source before it changed.
    return pool if pin.sha256 == pool.sha256 else await _kept(store, pin)


async def _kept(store: ObjectStore, pin: ReplayPin) -> ReplayPool:
    data = await store.read(_path(pin.sha256)) or b""
    if content_sha256(data) != pin.sha256:
        raise CorruptArtifact(f"{_path(pin.sha256)} does not hold what its name says; bring it back")
    return ReplayPool(tuple(json.loads(line) for line in data.split(b"\n") if line), pin.sha256)


def _path(sha256: str) -> str:
    return f"replay/{sha256}.jsonl"

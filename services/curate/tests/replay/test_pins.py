from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.spec import ReplaySpec
from tunewheel_curate.replay.mixing import ReplayPool
from tunewheel_curate.replay.pins import pinned_replay
from tunewheel_curate.replay.sources import read_replay
from tunewheel_runtime.store import CorruptArtifact, ObjectStore

HERE = AllowedSources(folders=("/",))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "general.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"Question {n}", "response": "x"}) for n in range(3)))
    return path


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore((tmp_path / "store").as_uri())


async def test_a_build_repeated_takes_what_its_first_attempt_took(source: Path, store: ObjectStore) -> None:
    spec = ReplaySpec(source=str(source))
    first = await pinned_replay(store, "build-1", spec, HERE)
    assert len(first.conversations) == 3
    source.write_text(json.dumps({"prompt": "Something else", "response": "x"}))
    assert await pinned_replay(store, "build-1", spec, HERE) == first
    assert (await pinned_replay(store, "build-2", spec, HERE)).sha256 != first.sha256
    source.unlink()
    assert await pinned_replay(store, "build-1", spec, HERE) == first
    with pytest.raises(InvalidSpec, match="cannot be read"):
        await pinned_replay(store, "build-3", spec, HERE)


async def test_what_was_kept_and_is_gone_is_told(source: Path, store: ObjectStore) -> None:
    pool = await pinned_replay(store, "build-1", ReplaySpec(source=str(source)), HERE)
    await store.delete([f"replay/{pool.sha256}.jsonl"])
    with pytest.raises(CorruptArtifact, match="bring it back"):
        await pinned_replay(store, "build-1", ReplaySpec(source=str(source)), HERE)


async def test_of_two_attempts_at_once_the_first_to_pin_decides(
    source: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, reading = ReplaySpec(source=str(source)), "tunewheel_curate.replay.pins.read_replay"
    quicker: list[ReplayPool] = []

    def overtaken(*_: object) -> ReplayPool:
        monkeypatch.setattr(reading, read_replay)
        quicker.append(asyncio.run(pinned_replay(store, "build-1", spec, HERE)))
        source.write_text(json.dumps({"prompt": "Something else", "response": "x"}))
        return read_replay(spec, HERE)

    monkeypatch.setattr(reading, overtaken)
    assert [await pinned_replay(store, "build-1", spec, HERE)] == quicker
    assert len(quicker[0].conversations) == 3

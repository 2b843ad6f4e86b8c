from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from tunewheel_contracts.formats.look import LOOKS, Look, look_path
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_curate.holdout.memory import HoldoutMemory
from tunewheel_curate.holdout.retirement import pinned_retired
from tunewheel_runtime.store import ObjectStore


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path.as_uri())


async def look(store: ObjectStore, number: int, *groups: str, project: str = "desk") -> None:
    name = f"scorecard-{number}"
    data = Look(project=project, scorecard_id=name, groups=groups, looks=1)
    await store.put(look_path(project, name), data.model_dump_json().encode())


async def test_a_group_is_retired_after_ten_looks_and_every_attempt_says_the_same(store: ObjectStore) -> None:
    for number in range(LOOKS):
        await look(store, number, "group-a", *(["group-b"] if number else []))
        await look(store, number, "group-c", project="other")
    await store.put(look_path("desk", "scorecard-damaged"), b"{")
    assert await pinned_retired(store, "build-1", "desk") == ("group-a",)
    await look(store, LOOKS, "group-b")
    assert await pinned_retired(store, "build-1", "desk") == ("group-a",)
    assert await pinned_retired(store, "build-2", "desk") == ("group-a", "group-b")


@pytest.mark.parametrize("secret", ["", "a secret"])
def test_the_memory_keeps_who_is_retired(secret: str) -> None:
    names = Pseudonyms("desk", secret)
    memory = HoldoutMemory(names=names).retiring(["group-a"])
    memory.to_frame().write_parquet(data := BytesIO())
    again = HoldoutMemory.read(data.getvalue(), names)
    assert again.retired("group-a")
    assert not again.retired("group-b")

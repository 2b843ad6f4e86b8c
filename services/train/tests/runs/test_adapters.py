from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_runtime.store import PART_BYTES
from tunewheel_testing.adapters import BASE
from tunewheel_train.progress import Completed
from tunewheel_train.runs import adapters
from tunewheel_train.runs.runs import Result, plan_run

OUTCOME = Result(
    Completed(
        steps=6, tokens=900, wall_seconds=1.5, dtype="float32", metrics={"final_loss": 0.5}, versions={}
    ),
    TrainSpec(),
)


def write_adapter(directory: Path, weights: str) -> Path:
    directory.mkdir()
    (directory / "adapter_config.json").write_text("{}")
    (directory / "adapter_model.safetensors").write_text(weights)
    return directory


async def planned(bench):
    made = await bench()
    base = BASE
    return made.store, plan_run(made.manifest, made.event.manifest, base)


async def test_what_is_published_is_found_again(bench, tmp_path: Path):
    store, run = await planned(bench)
    assert await adapters.find(store, run) is None
    published = await adapters.publish(store, run, write_adapter(tmp_path / "a", "weights"), OUTCOME)
    assert await adapters.find(store, run) == published
    assert published[0].adapter.path == run.adapter_path


async def test_the_first_complete_upload_wins(bench, tmp_path: Path):
    store, run = await planned(bench)
    first = await adapters.publish(store, run, write_adapter(tmp_path / "a", "weights"), OUTCOME)
    slower = replace(OUTCOME, outcome=OUTCOME.outcome.model_copy(update={"wall_seconds": 9.0}))
    second = await adapters.publish(store, run, write_adapter(tmp_path / "b", "other weights"), slower)
    assert second == first


async def test_an_upload_that_was_never_finished_is_not_in_the_way(bench, tmp_path: Path):
    store, run = await planned(bench)
    await store.put(f"{run.adapter_path}/{adapters.CONTENTS}", b"of a worker that died")
    manifest, _ = await adapters.publish(store, run, write_adapter(tmp_path / "a", "weights"), OUTCOME)
    assert manifest.adapter.path.startswith(f"{run.adapter_path}.")
    for ref in manifest.adapter.files:
        assert ref.path.startswith(f"{manifest.adapter.path}/")
        await store.get(ref)


async def test_an_upload_that_was_interrupted_is_gone_on_with(bench, tmp_path: Path, monkeypatch):
    store, run = await planned(bench)
    directory = write_adapter(tmp_path / "a", "weights")

    async def away(path: str, file: Path, *, sha256: str) -> ArtifactRef:
        raise TransientError("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(store, "put_file", away)
        with pytest.raises(TransientError):
            await adapters.publish(store, run, directory, OUTCOME)
    assert await adapters.find(store, run) is None
    manifest, _ = await adapters.publish(store, run, directory, OUTCOME)
    assert manifest.adapter.path == run.adapter_path
    for ref in manifest.adapter.files:
        await store.get(ref)


async def test_a_whole_model_goes_up_a_part_at_a_time(bench, tmp_path: Path):
    store, run = await planned(bench)
    directory = write_adapter(tmp_path / "a", "")
    with (directory / "model.safetensors").open("wb") as file:
        file.truncate(8 * PART_BYTES)
    tracemalloc.start()
    try:
        manifest, _ = await adapters.publish(store, run, directory, OUTCOME)
        assert tracemalloc.get_traced_memory()[1] < 3 * PART_BYTES
    finally:
        tracemalloc.stop()
    assert {ref.size_bytes for ref in manifest.adapter.files} >= {8 * PART_BYTES}

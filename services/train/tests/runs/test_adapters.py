from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.formats.run import BaseModelRef
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
    base = BaseModelRef(name="some/model", revision="abc")
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
    await store.put(f"{run.adapter_path}/adapter_model.safetensors", b"of a worker that died")
    manifest, _ = await adapters.publish(store, run, write_adapter(tmp_path / "a", "weights"), OUTCOME)
    assert manifest.adapter.path.startswith(f"{run.adapter_path}.")
    for ref in manifest.adapter.files:
        assert ref.path.startswith(f"{manifest.adapter.path}/")
        await store.get(ref)

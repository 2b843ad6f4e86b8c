"""A run on a machine with too little memory, or too small a disk."""

from __future__ import annotations

import asyncio
import contextlib
import runpy
import sys
from pathlib import Path

import pytest
from tunewheel_contracts.events.training import TrainCompleted, TrainFailed, TrainPlanned
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.waiting import until
from tunewheel_train.runs import remote_checkpoints
from tunewheel_train.runs.runs import checkpoints_prefix

LIGHT_WORKER = Path(__file__).with_name("light_worker.py")


async def test_without_memory_the_run_goes_down_the_ladder_and_says_so(bench, monkeypatch):
    monkeypatch.setenv("LIGHT_FAULT", "oom")
    made = await bench()
    event = await made.train()
    assert isinstance(event, TrainCompleted)
    manifest = RunManifest.model_validate_json(await made.store.get(event.manifest))
    assert [(a.field, a.value, a.after_step) for a in manifest.adjustments] == [
        ("micro_batch_size", "2", 1), ("micro_batch_size", "1", 1),
    ]  # fmt: skip
    assert manifest.recipe.micro_batch_size == 4


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.nightly("matrices"))])
async def test_a_process_that_the_kernel_killed_for_want_of_memory_goes_down_the_ladder(
    bench, monkeypatch, small_memory: Path, processes: int
):
    monkeypatch.setenv("LIGHT_FAULT", "eat")
    made = await bench()
    entering = f"echo $$ > {small_memory}/cgroup.procs; "
    light = f'exec {sys.executable} {LIGHT_WORKER} "$@"'
    if processes == 2:  # as PyTorch's launcher ends when one of its processes was killed
        made.settings = made.settings.model_copy(update={"train_processes": 2})
        monkeypatch.setattr("tunewheel_train.runs.process.together", lambda worker, *_: worker)
        light = f'{sys.executable} {LIGHT_WORKER} "$@" || exit 1'
    made.worker = ("sh", "-c", entering + light, "light_worker")
    event = await made.train()
    assert isinstance(event, TrainCompleted)
    manifest = RunManifest.model_validate_json(await made.store.get(event.manifest))
    assert [(a.value, a.after_step) for a in manifest.adjustments] == [("2", 1), ("1", 1)]


async def test_a_quantised_run_goes_on_from_its_own_checkpoint_on_another_machine(
    bench, monkeypatch, tmp_path: Path
):
    monkeypatch.setenv("LIGHT_FAULT", "small")
    monkeypatch.setenv("LIGHT_WAIT", "1")  # once quantised, it stays behind its first checkpoint
    made = await bench(on_out_of_memory="quantize", micro_batch_size=1)
    task = asyncio.create_task(made.train())
    await until(lambda: list(made.settings.runs_dir.glob("*/*/checkpoint-000002")))
    (run_dir,) = made.settings.runs_dir.glob("run-*")
    made.lease.lost.set()
    with pytest.raises(made.lease.Lost):
        await task
    # before it was quantised it had come further
    write_checkpoint = runpy.run_path(str(LIGHT_WORKER))["write_checkpoint"]
    prefix = checkpoints_prefix(run_dir.name)
    await remote_checkpoints.upload(made.store, prefix, write_checkpoint(tmp_path / "before", 5), keep=2)
    monkeypatch.delenv("LIGHT_WAIT")
    event = await made.on_another_machine(tmp_path / "other").train()
    assert isinstance(event, TrainCompleted)
    manifest = RunManifest.model_validate_json(await made.store.get(event.manifest))
    assert (manifest.adjustments[-1].value, manifest.resumed_from_steps) == ("qlora", (3,))


async def test_without_memory_and_without_leave_the_run_fails(bench, monkeypatch):
    monkeypatch.setenv("LIGHT_FAULT", "oom")
    made = await bench(on_out_of_memory="fail")
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert (event.field, event.step) == ("train.micro_batch_size", 1)
    assert event.reason == "does not fit this machine's memory; lower it"
    (planned,) = [news for news in made.told if isinstance(news, TrainPlanned)]
    assert event.plan == planned.plan


async def test_a_full_disk_fails_the_run_with_nothing_half_published(bench, monkeypatch):
    monkeypatch.setenv("LIGHT_FAULT", "disk")
    made = await bench()
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "(disk)"
    assert "free some, or set TUNEWHEEL_WORK_DIR" in event.reason
    assert await made.store.list("adapters") == []
    assert await made.store.list("runs") == []


async def test_a_full_store_fails_the_run_with_nothing_published(bench, small_disk: Path):
    made = await bench()
    full = ObjectStore(f"file://{small_disk}/store")
    for path in await made.store.list("datasets"):
        await full.put(path, await made.store.read(path))
    with (small_disk / "rest").open("wb", buffering=0) as rest, contextlib.suppress(OSError):
        while True:
            rest.write(bytes(4096))
    made.store = full
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "(disk)"
    assert await full.list("runs") == []


async def test_a_failed_run_leaves_its_log_alone(bench, monkeypatch):
    monkeypatch.setenv("LIGHT_FAULT", "oom")
    made = await bench(on_out_of_memory="fail", checkpoint_steps=1)
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.step == 1
    run_dir = made.settings.runs_dir / event.run_id
    assert [path.name for path in run_dir.iterdir()] == ["train.log"]
    assert await made.store.list("runs") == []

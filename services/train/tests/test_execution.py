"""A run from event to adapter with a real store and a real training process; only the bus is missing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.training import (
    TrainAction,
    TrainCompleted,
    TrainControl,
    TrainFailed,
    TrainProgressed,
    TrainStarted,
)
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_train import checkpoints

LONG = 100.0
"""Epochs that outlast any test that interrupts them."""


async def until(condition) -> None:
    async with asyncio.timeout(240):
        while not condition():
            await asyncio.sleep(0.02)


def progressed(bench) -> bool:
    return any(isinstance(news, TrainProgressed) for news in bench.told)


def training_processes() -> list[psutil.Process]:
    return [process for process in psutil.Process().children() if "train" in command_line(process)]


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a zombie too
        return []


def command(run_id: str, action: TrainAction):
    data = TrainControl(project="helpdesk", run_id=run_id, action=action, request=action.value)
    return new_event(data, source="/test")


async def test_a_version_becomes_an_adapter_with_its_manifest(bench):
    made = await bench()
    event = await made.train()
    assert isinstance(event, TrainCompleted)
    manifest = RunManifest.model_validate_json(await made.store.get(event.manifest))
    assert manifest.steps == 6
    assert manifest.adapter == event.adapter
    assert manifest.criteria_sha256 == made.event.criteria_sha256
    names = {ref.path.removeprefix(f"adapters/{event.adapter.model_id}/") for ref in event.adapter.files}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "tunewheel.json"}
    (started,) = [news for news in made.told if isinstance(news, TrainStarted)]
    assert (started.total_steps, started.resumed_from_step) == (6, 0)
    assert [n.step for n in made.told if isinstance(n, TrainProgressed)] == [1, 2, 3, 4, 5, 6]
    assert await made.store.list(f"runs/{event.run_id}") == [event.manifest.path]


async def test_a_second_delivery_says_the_same_without_training(bench):
    made = await bench()
    first = await made.train()
    made.told.clear()
    again = await made.train()
    assert again == first
    assert new_event(again, source="/t").id == new_event(first, source="/t").id
    assert made.told == []


async def test_a_base_model_that_does_not_exist_fails_with_its_field(bench, tmp_path: Path):
    made = await bench(base_model=str(tmp_path / "nowhere"))
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "base_model"
    assert "give the path of a directory" in event.reason


async def test_a_manifest_that_is_gone_is_an_invalid_event(bench):
    made = await bench()
    await made.store.delete([made.event.manifest.path])
    with pytest.raises(InvalidEvent, match="is not in"):
        await made.train()


async def test_a_lost_lease_leaves_a_checkpoint_that_another_machine_resumes_from(bench, tmp_path: Path):
    made = await bench(epochs=60)
    task = asyncio.create_task(made.train())
    await until(lambda: progressed(made))
    made.lease.lost.set()
    with pytest.raises(made.lease.Lost):
        await task
    assert training_processes() == []
    heard = len(made.told)
    other = made.on_another_machine(tmp_path / "other")
    event = await other.train()
    assert isinstance(event, TrainCompleted)
    assert len(made.told) == heard
    (started,) = [news for news in other.told if isinstance(news, TrainStarted)]
    assert started.resumed_from_step > 0


async def test_a_killed_training_process_is_started_again_and_ends_alike(bench, tmp_path: Path):
    made = await bench(epochs=60)
    task = asyncio.create_task(made.train())
    runs = made.settings.runs_dir
    await until(lambda: any(checkpoints.latest(path) for path in runs.glob("*/work")))
    for process in training_processes():
        process.send_signal(signal.SIGKILL)
    event = await task
    assert isinstance(event, TrainCompleted)
    started = [news.resumed_from_step for news in made.told if isinstance(news, TrainStarted)]
    assert len(started) == 2
    assert started[1] >= 2
    manifest = json.loads(await made.store.get(event.manifest))
    assert manifest["resumed_from_steps"] == [started[1]]
    await made.store.delete(await made.store.list("adapters") + [event.manifest.path])
    alone = await made.on_another_machine(tmp_path / "alone").train()
    assert [ref.sha256 for ref in alone.adapter.files] == [ref.sha256 for ref in event.adapter.files]


async def test_a_process_that_keeps_dying_fails_the_run(bench, monkeypatch):
    made = await bench()
    # The located base model is found; then Python cannot even start the worker.
    original = asyncio.create_subprocess_exec

    async def sabotaged(*command, **options):
        if "train" in command:
            command = (command[0], "-c", "import sys; sys.exit('no such device')")
        return await original(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", sabotaged)
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "(run)"
    assert event.reason == (
        "stopped 3 times without coming further: the training process ended with exit code 1: no such device"
    )


async def test_cancel_ends_the_run_and_holds_for_later_deliveries(bench):
    made = await bench(epochs=LONG)
    task = asyncio.create_task(made.train())
    await until(lambda: progressed(made))
    run_id = made.told[0].run_id
    made.controls.apply(command(run_id, TrainAction.CANCEL))
    event = await task
    assert isinstance(event, TrainFailed)
    assert event.reason.startswith("was cancelled")
    assert event.step > 0
    assert isinstance(await made.train(), TrainFailed)
    assert training_processes() == []


async def test_pause_frees_the_machine_and_resume_goes_on(bench):
    made = await bench(epochs=60)
    task = asyncio.create_task(made.train())
    await until(lambda: progressed(made))
    run_id = made.told[0].run_id
    made.controls.apply(command(run_id, TrainAction.PAUSE))
    await until(lambda: not training_processes())
    assert not task.done()
    made.controls.apply(command(run_id, TrainAction.RESUME))
    assert isinstance(await task, TrainCompleted)
    assert [n.resumed_from_step > 0 for n in made.told if isinstance(n, TrainStarted)] == [False, True]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the environment of a process from /proc")
async def test_the_process_gets_its_threads_and_allocator_settings(bench):
    made = await bench(epochs=LONG)
    task = asyncio.create_task(made.train())
    await until(lambda: progressed(made))
    (process,) = training_processes()
    environ = dict(
        pair.split("=", 1)
        for pair in Path(f"/proc/{process.pid}/environ").read_text().split("\0")
        if "=" in pair
    )
    made.lease.lost.set()
    with pytest.raises(made.lease.Lost):
        await task
    assert environ["OMP_NUM_THREADS"] == "1"
    assert int(environ["MALLOC_TOP_PAD_"]) >= 1 << 28
    assert os.environ.get("MALLOC_TOP_PAD_") is None

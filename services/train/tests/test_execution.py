"""A run from event to adapter with a real store and real processes; only the bus is missing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import sys
from functools import partial
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
    TrainPlanned,
    TrainProgressed,
    TrainStarted,
)
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_runtime.store import ObjectStore
from tunewheel_train.progress import Failed, Message, Stopped
from tunewheel_train.runs import attempts
from tunewheel_train.runs.process import run_process
from tunewheel_train.runs.runs import MAX_RECORD_IDS
from tunewheel_train.trainers import checkpoints
from tunewheel_train.worker import of_shortage

LONG = 100.0
OTHER = "helpdesk-0123456789ab"
"""Epochs of six steps that a test interrupts and does not want to see the end of."""


LIGHT_WORKER = Path(__file__).with_name("light_worker.py")
RUN_LIGHT_WORKER = f"runpy.run_path({str(LIGHT_WORKER)!r}, run_name='__main__')"


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


def said(*words: Message) -> str:
    return "\n".join(word.model_dump_json() for word in words)


def command(run_id: str, action: TrainAction):
    data = TrainControl(project="helpdesk", run_id=run_id, action=action, request=action.value)
    return new_event(data, source="/test")


async def test_a_version_becomes_an_adapter_once(bench):
    made = (await bench()).with_the_real_worker()
    event = await made.train()
    assert isinstance(event, TrainCompleted)
    manifest = RunManifest.model_validate_json(await made.store.get(event.manifest))
    assert manifest.steps == 6
    assert manifest.adapter == event.adapter
    assert event.adapter.base_facts is not None
    assert event.adapter.base_facts.context_length == 512
    assert manifest.criteria_sha256 == made.event.criteria_sha256
    names = {ref.path.removeprefix(f"adapters/{event.adapter.model_id}/") for ref in event.adapter.files}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "tunewheel.json"}
    assert manifest.usage is not None
    assert isinstance(made.told[0], TrainPlanned)
    assert made.told[0].plan == manifest.plan == event.plan
    (started,) = [news for news in made.told if isinstance(news, TrainStarted)]
    assert (started.total_steps, started.resumed_from_step) == (6, 0)
    assert [n.step for n in made.told if isinstance(n, TrainProgressed)] == [1, 2, 3, 4, 5, 6]
    assert await made.store.list(f"runs/{event.run_id}") == [event.manifest.path]
    made.told.clear()
    again = await made.train()
    assert again == event
    assert new_event(again, source="/t").id == new_event(event, source="/t").id
    assert made.told == []


async def test_a_base_model_that_does_not_exist_fails_with_its_field(bench, tmp_path: Path):
    made = await bench(base_model=str(tmp_path / "nowhere"))
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "base_model"
    assert "give the path of a directory" in event.reason


async def with_a_dead_hub(bench, tmp_path: Path, monkeypatch):
    """A bench whose base is on a hub where nobody listens; from the second process on, in the hub's cache."""
    filled = tmp_path / "hub" / "models--nobody--tiny"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    made = await bench(base_model="nobody/tiny")
    script = (
        f"import os, pathlib, runpy; seen = pathlib.Path({str(tmp_path / 'seen')!r}); "
        f"os.environ['HF_HUB_CACHE'] = {str(filled.parent)!r} if seen.exists() else {str(tmp_path)!r}; "
        f"seen.touch(); {RUN_LIGHT_WORKER}"
    )
    made.worker = (sys.executable, "-c", script)
    return made, filled


async def test_a_hub_that_is_down_for_a_while_delays_the_run(bench, tiny_base, tmp_path: Path, monkeypatch):
    made, cached = await with_a_dead_hub(bench, tmp_path, monkeypatch)
    revision = "a" * 40
    shutil.copytree(tiny_base.path, cached / "snapshots" / revision)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(revision)
    made.settings = made.settings.model_copy(update={"retry_first_delay_seconds": 0.01})
    event = await made.train()
    assert isinstance(event, TrainCompleted)
    assert event.adapter.base.revision == revision


async def test_a_hub_that_stays_down_fails_the_run_and_is_named(bench, tmp_path: Path, monkeypatch):
    made, _ = await with_a_dead_hub(bench, tmp_path, monkeypatch)
    made.settings = made.settings.model_copy(update={"retry_first_delay_seconds": 0.01, "hub_attempts": 2})
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "base_model"
    assert "gave up after 2 attempts" in event.reason
    assert "hub does not answer" in event.reason


async def test_a_search_on_a_dead_hub_ends_with_its_lease(bench, tmp_path: Path, monkeypatch):
    made, _ = await with_a_dead_hub(bench, tmp_path, monkeypatch)
    made.settings = made.settings.model_copy(
        update={"retry_first_delay_seconds": 3_600.0, "retry_max_delay_seconds": 3_600.0}
    )
    task = asyncio.create_task(made.train())
    await until((tmp_path / "seen").exists)
    made.lease.lost.set()
    with pytest.raises(made.lease.Lost):
        await task


async def test_a_manifest_that_is_gone_is_an_invalid_event(bench):
    made = await bench()
    await made.store.delete([made.event.manifest.path])
    with pytest.raises(InvalidEvent, match="is not in"):
        await made.train()


async def test_a_lost_lease_leaves_a_checkpoint_that_another_machine_resumes_from(bench, tmp_path: Path):
    made = await bench(epochs=40)
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
    made = await bench(epochs=40)
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


async def test_a_process_that_keeps_dying_fails_the_run(bench):
    made = await bench()
    # It finds the base model, but cannot train.
    script = f"import runpy, sys; 'locate' in sys.argv or sys.exit('no such device'); {RUN_LIGHT_WORKER}"
    made.worker = (sys.executable, "-c", script)
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "(run)"
    assert event.reason == (
        "stopped 3 times without coming further: the training process ended with exit code 1: no such device"
    )


async def test_a_failure_that_names_thousands_of_records_is_heard(bench):
    made = await bench()
    script = (
        "import runpy, sys; from tunewheel_train.progress import Failed; "
        "failure = Failed(field='train.learning_rate', reason='lower it', "
        "record_ids=[f'rec-{number:020}' for number in range(5_000)]); "
        "'locate' in sys.argv or sys.exit(print(failure.model_dump_json()) or 65); "
        f"{RUN_LIGHT_WORKER}"
    )
    made.worker = (sys.executable, "-c", script)
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "train.learning_rate"
    assert len(event.record_ids) == MAX_RECORD_IDS


async def test_a_process_that_hangs_is_killed_and_started_again(bench, monkeypatch):
    """It waits for ever at its second step; what is allowed has passed once the first was told of."""
    monkeypatch.setenv("LIGHT_FAULT", "hang")
    made = await bench()
    made.settings = made.settings.model_copy(update={"stuck_seconds": 90.0, "train_attempts": 2})
    allowed: list[float] = []

    def silence(seconds: float) -> asyncio.Timeout:
        allowed.append(seconds)
        return asyncio.timeout(0 if progressed(made) else None)

    monkeypatch.setattr(attempts, "run_process", partial(run_process, silence=silence))
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.reason == (
        "stopped 2 times without coming further: the training process ended: it said nothing for 90 s "
        "(TUNEWHEEL_STUCK_SECONDS) and was killed"
    )
    assert event.step == 1
    assert set(allowed) == {90.0}
    assert training_processes() == []


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


@pytest.mark.parametrize("processes", [1, 2])
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


async def test_a_failure_is_heard_though_others_of_its_processes_stop_after_it(bench):
    made = await bench(on_out_of_memory="fail")
    words = [Failed(field="(disk)", reason="is full"), Stopped(step=3)]
    script = (
        f"import runpy, sys; 'train' in sys.argv and sys.exit(print({said(*words)!r})); {RUN_LIGHT_WORKER}"
    )
    made.worker = (sys.executable, "-c", script)
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "(disk)"


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


async def test_a_disk_that_is_full_before_the_search_for_the_base_fails_the_run(bench):
    made = await bench()
    locating = made.settings.runs_dir.parent / "locating"
    locating.mkdir(parents=True)
    (locating / "locate.json").symlink_to("/dev/full")
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "(disk)"


@pytest.mark.parametrize(
    ("error", "field", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "(disk)", "has no space left"),
        (MemoryError(), "base_model", "cannot be converted in this machine's memory"),
    ],
    ids=str,
)
async def test_a_machine_too_small_to_convert_the_base_is_told_as_such(bench, error, field, words):
    made = await bench()
    # What the process says when converting raised it.
    word = of_shortage(error).model_dump_json()
    made.worker = (sys.executable, "-c", f"print({word!r}); raise SystemExit(65)")
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == field
    assert words in event.reason


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


async def test_an_adapter_to_go_on_from_that_is_missing_fails_before_training(bench):
    made = await bench(continue_from="helpdesk-0123456789ab")
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "train.continue_from"
    assert made.told == []


async def test_an_adapter_of_another_base_fails_before_training_with_nothing_published(bench):
    made = await bench(continue_from=OTHER)
    told = {"base_model": "some/other", "base_revision": "abc", "quantization": None}
    for name, content in (("tunewheel.json", json.dumps(told)), ("adapter_config.json", "{}")):
        await made.store.put(f"adapters/{OTHER}/{name}", content.encode())
    await made.store.put(f"adapters/{OTHER}/adapter_model.safetensors", b"weights")
    before = await made.store.list("adapters")
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "train.continue_from"
    assert "was trained on some/other at abc" in event.reason
    assert made.told == []
    assert await made.store.list("adapters") == before
    assert await made.store.list("runs") == []


async def test_criteria_of_another_hash_are_an_invalid_event_with_nothing_published(bench):
    made = await bench()
    made.event = made.event.model_copy(update={"criteria_sha256": "f" * 64})
    with pytest.raises(InvalidEvent, match="criteria_sha256 is not the hash of the spec's criteria"):
        await made.train()
    assert made.told == []
    assert await made.store.list("runs") == await made.store.list("adapters") == []


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
    assert checkpoints.latest(made.settings.runs_dir / run_id / "work") is not None
    assert isinstance(await made.train(), TrainFailed)
    assert training_processes() == []


async def test_pause_frees_the_machine_and_resume_goes_on(bench):
    made = await bench(epochs=40)
    task = asyncio.create_task(made.train())
    await until(lambda: progressed(made))
    run_id = made.told[0].run_id
    made.controls.apply(command(run_id, TrainAction.PAUSE))
    await until(lambda: not training_processes())
    assert not task.done()
    made.controls.apply(command(run_id, TrainAction.RESUME))
    assert isinstance(await task, TrainCompleted)
    assert [n.resumed_from_step > 0 for n in made.told if isinstance(n, TrainStarted)] == [False, True]


async def test_a_paused_run_lets_another_train(bench):
    made = await bench(epochs=LONG)
    trainings = made.trainings
    first = asyncio.create_task(trainings.train(made.event, lease=made.lease, tell=made.tell))
    await until(lambda: progressed(made))
    other = await bench(epochs=LONG, dataset_id="ds-other")
    waiting = asyncio.create_task(trainings.train(other.event, lease=other.lease, tell=other.tell))
    first_id = made.told[0].run_id
    assert not progressed(other)
    made.controls.apply(command(first_id, TrainAction.PAUSE))
    await until(lambda: progressed(other))
    assert not first.done()
    made.controls.apply(command(first_id, TrainAction.CANCEL))
    assert isinstance(await first, TrainFailed)
    other.lease.lost.set()
    with pytest.raises(other.lease.Lost):
        await waiting


async def test_runs_that_begin_together_each_find_their_own_base(bench, tmp_path: Path):
    good = await bench()
    missing = await bench(base_model=str(tmp_path / "nowhere"), dataset_id="ds-other")
    trainings = good.trainings
    events = await asyncio.gather(
        *(trainings.train(made.event, lease=made.lease, tell=made.tell) for made in (missing, good))
    )
    assert [type(event) for event in events] == [TrainFailed, TrainCompleted]
    assert events[0].field == "base_model"


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


async def test_a_run_sees_the_gpus_of_its_slot_alone(bench):
    made = await bench()
    made.settings = made.settings.model_copy(update={"train_gpus": "5,6"})
    outcome = await made.train()
    manifest = RunManifest.model_validate_json(await made.store.get(outcome.manifest))
    assert manifest.versions["devices"] == "5"

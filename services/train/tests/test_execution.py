"""A run from event to adapter with a real store and real processes; only the bus is missing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
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
from tunewheel_testing.adapters import OTHER_BASE
from tunewheel_testing.waiting import until
from tunewheel_train.execution import Trainings, delete_finished
from tunewheel_train.progress import Failed, Message, Stopped
from tunewheel_train.runs import process, remote_checkpoints
from tunewheel_train.runs.controls import Versions
from tunewheel_train.runs.process import Patience
from tunewheel_train.runs.runs import MAX_RECORD_IDS
from tunewheel_train.trainers import checkpoints

OTHER = "helpdesk-0123456789ab"


@pytest.fixture
def in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs stay in their middle until they are interrupted; see ``light_worker.wait_at``."""
    monkeypatch.setenv("LIGHT_WAIT", "1")


def progressed(bench) -> bool:
    return any(isinstance(news, TrainProgressed) for news in bench.told)


def training_processes() -> list[psutil.Process]:
    return [process for process in psutil.Process().children() if "train" in command_line(process)]


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a zombie too
        return []


def saying(*words: Message) -> str:
    """A training process that says this alone."""
    said = "\n".join(word.model_dump_json() for word in words)
    return f"'train' in sys.argv and sys.exit(print({said!r}))"


def command(run_id: str, action: TrainAction):
    data = TrainControl(project="helpdesk", run_id=run_id, action=action, request=action.value)
    return new_event(data, source="/test")


@pytest.mark.parametrize("real", [pytest.param(True, marks=pytest.mark.nightly("kills")), False])
async def test_a_version_becomes_an_adapter_once(bench, real: bool):
    made = await bench()
    if real:
        made = made.with_the_real_worker()
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
    assert [caution.split(":")[0] for caution in made.told[0].cautions] == [
        "train.learning_rate 0.005 is above 0.0001 and dataset.replay is not set"
    ]
    (started,) = [news for news in made.told if isinstance(news, TrainStarted)]
    assert (started.total_steps, started.resumed_from_step) == (6, 0)
    assert [n.step for n in made.told if isinstance(n, TrainProgressed)] == [1, 2, 3, 4, 5, 6]
    assert await made.store.list(f"runs/{event.run_id}") == [event.manifest.path]
    made.told.clear()
    await made.store.put(f"runs/{event.run_id}/checkpoints/one/of", b"a worker killed before it tidied up")
    again = await made.train()
    assert await made.store.list(f"runs/{event.run_id}") == [event.manifest.path]
    assert again == event
    assert new_event(again, source="/t").id == new_event(event, source="/t").id
    assert made.told == []


async def test_an_event_that_comes_again_meanwhile_is_not_trained_twice(bench):
    made = await bench()
    made.settings = made.settings.model_copy(update={"train_slots": 2})
    trainings = made.trainings
    calls = [trainings.train(made.event, lease=made.lease, tell=made.tell) for _ in range(2)]
    first, second = await asyncio.gather(*calls)
    assert isinstance(first, TrainCompleted)
    assert first == second
    assert len([news for news in made.told if isinstance(news, TrainStarted)]) == 1


async def test_a_manifest_that_is_gone_is_an_invalid_event(bench):
    made = await bench()
    await made.store.delete([made.event.manifest.path])
    with pytest.raises(InvalidEvent, match="is not in"):
        await made.train()


@pytest.mark.usefixtures("in_the_middle")
async def test_a_lost_lease_leaves_a_checkpoint_that_another_machine_resumes_from(bench, tmp_path: Path):
    made = await bench(method="full", keep_checkpoints=1)
    task = asyncio.create_task(made.train())
    await until(lambda: progressed(made))
    made.lease.lost.set()
    with pytest.raises(made.lease.Lost):
        await task
    assert training_processes() == []
    assert len({Path(path).parent for path in await made.store.list("runs")}) == 1
    heard = len(made.told)
    other = made.on_another_machine(tmp_path / "other")
    event = await other.train()
    assert isinstance(event, TrainCompleted)
    assert len(made.told) == heard
    (started,) = [news for news in other.told if isinstance(news, TrainStarted)]
    assert started.resumed_from_step > 0
    assert (made.settings.runs_dir / event.run_id).exists()
    made.lease.lost.clear()
    assert await made.train() == event
    assert not (made.settings.runs_dir / event.run_id).exists()


@pytest.mark.usefixtures("in_the_middle")
async def test_an_upload_that_hangs_does_not_outlast_the_time_to_stop(bench, monkeypatch: pytest.MonkeyPatch):
    made = await bench()
    made.settings = made.settings.model_copy(update={"stop_seconds": 0.05})
    uploading = asyncio.Event()

    async def hang(*_: object, **__: object) -> None:
        uploading.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(remote_checkpoints, "upload", hang)
    task = asyncio.create_task(made.train())
    await uploading.wait()
    made.lease.lost.set()
    with pytest.raises(made.lease.Lost):
        await task


@pytest.mark.usefixtures("in_the_middle")
async def test_whole_models_checkpoints_stay_on_the_worker_where_it_is_told_so(bench, tmp_path: Path):
    made = await bench(method="full")
    made.settings = made.settings.model_copy(update={"upload_full_checkpoints": False})
    task = asyncio.create_task(made.train())
    await until(lambda: progressed(made))
    made.lease.lost.set()
    with pytest.raises(made.lease.Lost):
        await task
    assert checkpoints.latest(made.settings.runs_dir / made.told[0].run_id / "work") is not None
    assert await made.store.list("runs") == []


@pytest.mark.usefixtures("in_the_middle")
async def test_a_killed_training_process_is_started_again_and_ends_alike(
    bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = await bench()
    task = asyncio.create_task(made.train())
    runs = made.settings.runs_dir
    await until(lambda: any(checkpoints.latest(path) for path in runs.glob("*/work")))
    for child in training_processes():
        child.send_signal(signal.SIGKILL)
    event = await task
    assert isinstance(event, TrainCompleted)
    started = [news.resumed_from_step for news in made.told if isinstance(news, TrainStarted)]
    assert len(started) == 2
    assert started[1] >= 2
    manifest = json.loads(await made.store.get(event.manifest))
    assert manifest["resumed_from_steps"] == [started[1]]
    await made.store.delete(await made.store.list("adapters") + [event.manifest.path])
    monkeypatch.delenv("LIGHT_WAIT")
    alone = await made.on_another_machine(tmp_path / "alone").train()
    assert [ref.sha256 for ref in alone.adapter.files] == [ref.sha256 for ref in event.adapter.files]


async def test_a_process_that_keeps_dying_fails_the_run(bench):
    # It finds the base model, but cannot train.
    made = (await bench()).whose_worker_first_runs("'locate' in sys.argv or sys.exit('no such device')")
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "(run)"
    assert event.reason == (
        "stopped 3 times without progress: the training process ended with exit code 1: no such device"
    )


async def test_a_failure_that_names_thousands_of_records_is_heard(bench):
    made = (await bench()).whose_worker_first_runs(
        "from tunewheel_train.progress import Failed; "
        "failure = Failed(field='train.learning_rate', reason='lower it', "
        "record_ids=[f'rec-{number:020}' for number in range(5_000)]); "
        "'locate' in sys.argv or sys.exit(print(failure.model_dump_json()) or 65)"
    )
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "train.learning_rate"
    assert len(event.record_ids) == MAX_RECORD_IDS


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("hang", "but made no progress for 90 s (TUNEWHEEL_STUCK_SECONDS) and was killed"),
        ("freeze", "it gave no sign of life for 6 s (TUNEWHEEL_SILENT_SECONDS) and was killed"),
    ],
)
async def test_a_process_that_is_stuck_is_killed_and_started_again(bench, monkeypatch, fault: str, told: str):
    """At its second step it waits for ever, or stands still; time has passed once the first was told of."""
    monkeypatch.setenv("LIGHT_FAULT", fault)
    made = await bench()
    made.settings = made.settings.model_copy(
        update={"stuck_seconds": 90.0, "silent_seconds": 6.0, "train_attempts": 2}
    )

    def silence(seconds: float) -> asyncio.Timeout:
        return asyncio.timeout(0 if fault == "freeze" and progressed(made) else None)

    def clock() -> float:
        """Stands still for what does: else an hour passes with every step that is told of."""
        steps = sum(isinstance(news, TrainProgressed) for news in made.told)
        return 3_600.0 * steps if fault == "hang" else 0.0

    patience = partial(Patience, silence=silence, clock=clock)
    monkeypatch.setattr(process, "Patience", patience)
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert told in event.reason
    assert event.reason.startswith("stopped 2 times without progress: the training process ended: ")
    assert event.step == 1
    assert training_processes() == []


async def test_a_failure_is_heard_though_others_of_its_processes_stop_after_it(bench):
    made = await bench()
    made.whose_worker_first_runs(saying(Failed(field="(disk)", reason="is full"), Stopped(step=3)))
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "(disk)"


async def test_an_adapter_to_go_on_from_that_is_missing_fails_before_training(bench):
    made = await bench(continue_from="helpdesk-0123456789ab")
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "train.continue_from"
    assert made.told == []


async def test_an_adapter_of_another_base_fails_before_training_with_nothing_published(bench, store_run):
    made = await bench(continue_from=OTHER)
    await store_run(made.store, OTHER, base=OTHER_BASE)
    before = await made.store.list("")
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "train.continue_from"
    assert "was trained on org/Other at r" in event.reason
    assert made.told == []
    assert await made.store.list("") == before


async def test_without_a_champion_a_run_starts_from_nothing_and_says_why(bench):
    made = await bench(continue_from="champion")
    event = await made.train()
    assert isinstance(event, TrainCompleted)
    assert event.start is not None
    assert (event.start.model_id, event.start.spared_steps) == (None, 0)
    assert "no model is in production" in event.start.reason
    assert "start" not in (await (await bench(dataset_id="ds-other")).train()).model_dump()


async def test_criteria_of_another_hash_are_an_invalid_event_with_nothing_published(bench):
    made = await bench()
    made.event = made.event.model_copy(update={"criteria_sha256": "f" * 64})
    with pytest.raises(InvalidEvent, match="criteria_sha256 is not the hash of the spec's criteria"):
        await made.train()
    assert made.told == []
    assert await made.store.list("runs") == await made.store.list("adapters") == []


@pytest.mark.usefixtures("in_the_middle")
async def test_cancel_ends_the_run_and_holds_for_later_deliveries(bench):
    made = await bench()
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


@pytest.mark.usefixtures("in_the_middle")
async def test_pause_frees_the_machine_and_resume_goes_on(bench):
    made = await bench()
    task = asyncio.create_task(made.train())
    await until(lambda: progressed(made))
    run_id = made.told[0].run_id
    made.controls.apply(command(run_id, TrainAction.PAUSE))
    await until(lambda: not training_processes())
    assert not task.done()
    made.controls.apply(command(run_id, TrainAction.RESUME))
    assert isinstance(await task, TrainCompleted)
    assert [n.resumed_from_step > 0 for n in made.told if isinstance(n, TrainStarted)] == [False, True]


@pytest.mark.usefixtures("in_the_middle")
async def test_a_paused_run_lets_another_train(bench):
    made = await bench()
    trainings = made.trainings
    first = asyncio.create_task(trainings.train(made.event, lease=made.lease, tell=made.tell))
    await until(lambda: progressed(made))
    other = await bench(dataset_id="ds-other")
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


@pytest.mark.usefixtures("in_the_middle")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the environment of a process from /proc")
async def test_the_process_gets_its_threads_and_allocator_settings(bench):
    made = await bench()
    task = asyncio.create_task(made.train())
    await until(lambda: progressed(made))
    (child,) = training_processes()
    environ = dict(
        pair.split("=", 1)
        for pair in Path(f"/proc/{child.pid}/environ").read_text().split("\0")
        if "=" in pair
    )
    made.lease.lost.set()
    with pytest.raises(made.lease.Lost):
        await task
    assert environ["OMP_NUM_THREADS"] == "1"
    assert int(environ["MALLOC_TOP_PAD_"]) >= 1 << 28
    assert environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert os.environ.get("MALLOC_TOP_PAD_") is None


@pytest.mark.nightly("matrices")
async def test_a_run_whose_gpu_does_not_come_up_fails_before_it_is_planned(bench):
    made = (await bench()).with_the_real_worker()
    made.settings = made.settings.model_copy(update={"train_gpus": "5,6"})
    outcome = await made.train()
    assert isinstance(outcome, TrainFailed)
    assert outcome.field == "(device)"
    assert made.told == []
    work = made.settings.runs_dir / outcome.run_id / "work"
    assert work.is_dir()  # checkpoints of an earlier process stay, for the day when the GPU is back


async def test_a_run_sees_the_gpus_of_its_slot_alone(bench):
    made = await bench()
    made.settings = made.settings.model_copy(update={"train_gpus": "5,6"})
    outcome = await made.train()
    manifest = RunManifest.model_validate_json(await made.store.get(outcome.manifest))
    assert manifest.versions["devices"] == "5"


async def test_what_another_worker_completed_is_deleted_and_nothing_else(tmp_path: Path):
    store, runs = ObjectStore("memory://"), tmp_path / "runs"
    await delete_finished(store, runs)  # before the first run
    for name in ("run-done", "run-busy", "run-interrupted", "lost+found"):
        (runs / name / "work").mkdir(parents=True)
        (runs / name / "train.log").write_text("")
    for complete in ("run-done", "run-busy"):
        await store.put(f"runs/{complete}/manifest.json", b"{}")
    await store.put("runs/run-interrupted/checkpoints/checkpoint-000002.0/checkpoint.json", b"{}")
    await delete_finished(store, runs, busy={"run-busy"})
    assert sorted(path.name for path in runs.iterdir()) == ["lost+found", "run-busy", "run-interrupted"]


async def test_a_run_above_its_ceiling_is_trained_after_all_when_somebody_says_so(bench):
    made = await bench(max_hours=1e-9)
    versions = Versions()
    trainings = Trainings(made.store, made.settings, made.controls, None, versions, worker=made.worker)
    failed = await trainings.train(made.event, lease=made.lease, tell=made.tell)
    assert isinstance(failed, TrainFailed)
    assert failed.field == "train.max_hours"
    versions.failed(new_event(failed, source="/t"))
    made.controls.apply(command(failed.run_id, TrainAction.RESUME))
    completed = await trainings.train(made.event, lease=made.lease, tell=made.tell)
    assert isinstance(completed, TrainCompleted)
    assert completed.run_id == failed.run_id

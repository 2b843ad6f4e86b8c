from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.training import (
    SweepRequested,
    TrainAction,
    TrainCompleted,
    TrainControl,
    TrainFailed,
    TrainPlanned,
    TrainStarted,
)
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_testing.adapters import BASE
from tunewheel_testing.subscribed import Subscribed
from tunewheel_testing.waiting import until
from tunewheel_train.handlers import register
from tunewheel_train.settings import Settings


def subscribed(bench: Any) -> Any:
    service = Subscribed("train", bench.store)
    register(service, bench.settings, worker=bench.worker)  # type: ignore[arg-type]
    return service


async def test_what_a_run_took_is_kept_beside_its_plan_and_corrects_the_next_ones(bench):
    made, other = await bench(), await bench(dataset_id="ds-other")
    service = subscribed(made)
    done = await service.on_dataset_versioned(new_event(made.event, source="/t"), made.lease)
    assert isinstance(done.data, TrainCompleted)
    manifest = RunManifest.model_validate_json(await made.store.get(done.data.manifest))
    assert manifest.plan is not None
    assert manifest.usage is not None
    service.replayed["train.completed"](done)
    await service.on_dataset_versioned(new_event(other.event, source="/t"), other.lease)
    first, second = (news.plan for news in service.told if isinstance(news, TrainPlanned))
    assert (first, first.calibrated_by, second.calibrated_by) == (manifest.plan, 0, 1)
    assert second.tokens_per_second.expected == pytest.approx(manifest.usage.tokens_per_second)


async def test_what_the_log_has_of_versions_and_runs_decides_which_are_dropped(bench):
    made, newer = await bench(), await bench(dataset_id="ds-newer")
    service = subscribed(made)
    events = [new_event(one.event, source="/t") for one in (made, newer)]
    for event in events:
        service.replayed["dataset.versioned"](event)
    dropped = await service.on_dataset_versioned(events[0], made.lease)
    assert dropped.data.superseded_by == "ds-newer"
    assert dropped.causation_id == events[0].id
    started = TrainStarted(
        project=made.event.project, run_id=dropped.data.run_id, dataset_id=made.event.dataset_id,
        base=BASE, method=TrainMethod.LORA, total_steps=6,
    )  # fmt: skip
    service.replayed["train.started"](new_event(started, source="/t"))
    taken_up = await service.on_dataset_versioned(events[0], made.lease)
    assert isinstance(taken_up.data, TrainCompleted)


def test_runs_lie_below_the_cache_unless_told_otherwise(tmp_path: Path):
    assert Settings(cache_dir=tmp_path).runs_dir == tmp_path / "work" / "train" / "runs"
    assert Settings(cache_dir=tmp_path, work_dir=tmp_path / "w").runs_dir == tmp_path / "w" / "train" / "runs"


async def test_a_command_to_resume_a_failed_run_puts_its_version_on_the_log_once_more(bench):
    made = await bench()
    service = subscribed(made)
    version = new_event(made.event, source="/t")
    project, dataset_id = version.project, made.event.dataset_id
    failed = TrainFailed(
        project=project, run_id="run-1", dataset_id=dataset_id, field="f", reason="r", attempt=1
    )
    service.replayed["dataset.versioned"](version)
    service.replayed["train.failed"](new_event(failed, source="/t"))

    async def command(action: TrainAction, request: str) -> Any:
        data = TrainControl(project=project, run_id="run-1", action=action, request=request)
        return await service.on_train_control(new_event(data, source="/t"))

    assert await command(TrainAction.PAUSE, "a") is None
    assert await command(TrainAction.RESUME, "b") is version


async def test_a_sweep_is_trained_for_an_operator_alone(bench):
    made = await bench()
    service = subscribed(made)
    event = new_event(made.event, source="/t")
    service.replayed["dataset.versioned"](event)
    wrong = SweepRequested(
        project="helpdesk", sweep_id="sweep-1", dataset_id="ds-tiny", recipes=({"rnak": 8},), request="r"
    )
    with pytest.raises(InvalidEvent) as refusal:
        await service.on_sweep_requested(new_event(wrong, source="/t"), made.lease)
    assert refusal.value.field == "train.rnak"

    async def refuse(*_: Any, field: str, **__: Any) -> None:
        raise InvalidEvent(field=field, reason="is no operator")

    service.access = SimpleNamespace(require=refuse)
    asked = wrong.model_copy(update={"recipes": ({"rank": 8},), "sweep_id": "sweep-2"})
    with pytest.raises(InvalidEvent) as refusal:
        await service.on_sweep_requested(new_event(asked, source="/t"), made.lease)
    assert refusal.value.field == "principal"
    assert service.told == []


async def test_a_flood_of_runs_delays_the_runs_of_others_by_its_turns_and_not_by_its_runs(
    bench, monkeypatch: pytest.MonkeyPatch
):
    """On one machine. A person had each older version trained after all; the flood's have the highest
    priority."""
    monkeypatch.setenv("LIGHT_WAIT", "1")  # the flood's first run holds the machine until it is paused
    asked = {"flood": (4, 9), "other": (2, 5), "quiet": (1, 0)}
    events = {
        project: [
            (await bench(dataset_id=f"{project}-{n}", project=project, priority=priority)).event
            for n in range(count)
        ]
        for project, (count, priority) in asked.items()
    }
    made = await bench()
    service = subscribed(made)
    runs: dict[str, str] = {}

    async def say(action: TrainAction, dataset_id: str, request: str) -> None:
        project = dataset_id.split("-")[0]
        data = TrainControl(project=project, run_id=runs[dataset_id], action=action, request=request)
        await service.replayed["train.control"](new_event(data, source="/t"), None)

    for versions in events.values():
        for event in versions:
            service.replayed["dataset.versioned"](new_event(event, source="/t"))
        for event in versions[:-1]:
            dropped = await service.on_dataset_versioned(new_event(event, source="/t"), made.lease)
            runs[event.dataset_id] = dropped.data.run_id
            service.replayed["train.failed"](dropped)
            await say(TrainAction.RESUME, event.dataset_id, "train it after all")

    def started() -> list[str]:
        return [news.dataset_id for news in service.told if isinstance(news, TrainStarted)]

    tasks: list[asyncio.Task[Any]] = []
    with capture_logs() as logs:
        for event in (one for versions in events.values() for one in versions):
            train = service.on_dataset_versioned(new_event(event, source="/t"), made.lease)
            tasks.append(asyncio.create_task(train))
            # The next run comes when the run before it holds the machine, or waits for the machine.
            await until(
                lambda: len(started()) + sum(one["event"] == "job_waits" for one in logs) == len(tasks)
            )
        monkeypatch.delenv("LIGHT_WAIT")
        runs["flood-0"] = next(news.run_id for news in service.told if isinstance(news, TrainStarted))
        await say(TrainAction.PAUSE, "flood-0", "let others go first")
        done = await asyncio.gather(*tasks[1:])
    await say(TrainAction.RESUME, "flood-0", "go on")
    done.append(await tasks[0])
    assert {type(one.data) for one in done} == {TrainCompleted}
    turns = ["other-0", "quiet-0", "flood-1", "other-1", "flood-2", "flood-3"]
    assert started() == ["flood-0", *turns, "flood-0"]

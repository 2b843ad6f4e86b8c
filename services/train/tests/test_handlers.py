from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, Event, new_event
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
from tunewheel_runtime.telemetry import make_telemetry
from tunewheel_testing.adapters import BASE
from tunewheel_train.handlers import register
from tunewheel_train.settings import Settings


class Unserved:
    """The view of ``serving.desired`` where nothing serves."""

    async def refresh(self) -> None: ...

    def get(self, project: str) -> None:
        return None


class Subscribed:
    """What the service subscribed to, to be called by hand."""

    name = "train"

    def __init__(self, store: Any) -> None:
        self.store = store
        self.telemetry = make_telemetry("train", None)
        self.replayed: dict[str, Any] = {}
        self.told: list[Event] = []
        self.on_dataset_versioned: Any = None

    def replay(self, topics: Any, apply: Any) -> Any:
        self.replayed |= {topic.name: apply for topic in topics}
        return Unserved()

    def replay_at(self, topics: Any, apply: Any) -> Any:
        return self.replay(topics, apply)

    def view(self, topic: Any) -> Any:
        return Unserved()

    def check(self, topic: Any) -> None: ...

    def ask_who(self) -> None: ...

    def predates_signatures(self, position: Any) -> bool:
        return False

    def on_startup(self, hook: Any) -> None: ...

    def on(self, topic: Any, **_: Any) -> Any:
        return lambda handler: setattr(self, f"on_{topic.name.replace('.', '_')}", handler)

    job = on

    def new(self, data: Event, *, cause: Envelope[Any]) -> Envelope[Any]:
        return new_event(data, source="/test", cause=cause)

    async def publish(self, event: Envelope[Any]) -> None:
        self.told.append(event.data)


class Anybody:
    """Access where everybody may do everything."""

    async def require(self, *_: Any, **__: Any) -> None: ...


async def test_what_a_run_took_is_kept_beside_its_plan_and_corrects_the_next_ones(bench):
    made, other = await bench(), await bench(dataset_id="ds-other")
    service: Any = Subscribed(made.store)
    register(service, made.settings, worker=made.worker)
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
    service: Any = Subscribed(made.store)
    register(service, made.settings, worker=made.worker)
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
    service: Any = Subscribed(made.store)
    service.access = Anybody()
    register(service, made.settings, worker=made.worker)
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
    service: Any = Subscribed(made.store)
    service.access = Anybody()
    register(service, made.settings, worker=made.worker)
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

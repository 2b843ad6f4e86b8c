from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.service import Position
from tunewheel_runtime.store import ObjectStore
from tunewheel_train.runs.controls import Commands, Controls, Versions


def command(action: TrainAction, run_id: str = "run-1", project: str = "p", request: str = "r"):
    data = TrainControl(project=project, run_id=run_id, action=action, request=request)
    return new_event(data, source="/test")


async def test_the_latest_command_of_a_run_counts():
    controls = Controls()
    assert controls.latest("p", "run-1") is TrainAction.RESUME
    controls.apply(command(TrainAction.PAUSE))
    controls.apply(command(TrainAction.CANCEL))
    controls.apply(command(TrainAction.RESUME, "run-2"))
    assert controls.latest("p", "run-1") is TrainAction.CANCEL
    assert controls.latest("p", "run-2") is TrainAction.RESUME


def test_a_command_in_another_project_is_not_for_this_run():
    """Who may send it there may be nobody here."""
    controls = Controls()
    controls.apply(command(TrainAction.CANCEL, project="other"))
    assert controls.latest("p", "run-1") is TrainAction.RESUME
    assert not controls.is_resumed("p", "run-1")


async def test_a_waiter_wakes_for_its_own_run_only():
    controls = Controls()
    waiting = asyncio.create_task(controls.wait("p", "run-1", lambda action: action is TrainAction.CANCEL))
    await asyncio.sleep(0)
    controls.apply(command(TrainAction.CANCEL, "run-2"))
    controls.apply(command(TrainAction.PAUSE))
    await asyncio.sleep(0)
    assert not waiting.done()
    controls.apply(command(TrainAction.CANCEL))
    assert await asyncio.wait_for(waiting, 60) is TrainAction.CANCEL


def test_a_copy_of_an_earlier_command_changes_nothing():
    """Whoever may write to the topic can copy a command, with its signature."""
    controls = Controls()
    for action in (TrainAction.PAUSE, TrainAction.RESUME, TrainAction.PAUSE):
        controls.apply(command(action))
    assert controls.latest("p", "run-1") is TrainAction.RESUME
    controls.apply(command(TrainAction.PAUSE, request="again"))
    assert controls.latest("p", "run-1") is TrainAction.PAUSE


class Workers:
    """Workers of one store, who ask the same roster; commands below the offset ``signed_from`` of partition 0
    are older than signatures."""

    def __init__(self, *operators: str, signed_from: int = 0) -> None:
        self.store = ObjectStore("memory://")
        self.operators = set(operators)
        self.signed_from = signed_from
        self.outages = 0

    async def check(self, command: TrainControl) -> None:
        if self.outages:
            self.outages -= 1
            raise TransientError("the issuer is away")
        if command.principal is None or command.principal.name not in self.operators:
            raise InvalidEvent(field="principal", reason="lacks the role operator")

    def _predates(self, position: Position) -> bool:
        return position.partition == 0 and position.offset < self.signed_from

    def worker(self) -> Commands:
        return Commands(self.store, self.check, self._predates, Backoff(3, 0.0, 0.0))


def sent(by: str | None, request: str = "r") -> Envelope[TrainControl]:
    data: dict[str, Any] = {
        "project": "p",
        "run_id": "run-1",
        "action": TrainAction.PAUSE,
        "request": request,
    }
    return new_event(TrainControl(**data, principal=None if by is None else {"name": by}), source="/test")


def at(offset: int, partition: int = 0) -> Position:
    return Position("train.control", partition, offset)


async def test_a_command_of_an_operator_counts_and_that_of_another_is_refused_by_its_field() -> None:
    worker = Workers("olga").worker()
    assert await worker.is_accepted(sent("olga"), at(0))
    await worker.demand_accepted(sent("olga"))
    for stranger in ("eve", None):
        assert not await worker.is_accepted(sent(stranger), at(1))
        with pytest.raises(InvalidEvent, match="principal lacks the role operator"):
            await worker.demand_accepted(sent(stranger))


async def test_what_was_decided_holds_after_a_restart_whoever_got_or_lost_the_role() -> None:
    workers = Workers("olga")
    assert await workers.worker().is_accepted(sent("olga"), at(0))
    assert not await workers.worker().is_accepted(sent("eve"), at(1))
    workers.operators = {"eve"}
    restarted = workers.worker()
    assert await restarted.is_accepted(sent("olga"), at(0))
    assert not await restarted.is_accepted(sent("eve"), at(1))
    with pytest.raises(InvalidEvent, match="lacks the role"):
        await restarted.demand_accepted(sent("eve"))
    assert await restarted.is_accepted(sent("eve", request="again"), at(2))


async def test_a_command_whose_sender_lost_the_role_before_anybody_read_it_counts_nowhere() -> None:
    workers = Workers("olga")
    command = sent("olga")
    workers.operators.clear()
    with pytest.raises(InvalidEvent, match="lacks the role"):
        await workers.worker().demand_accepted(command)
    assert not await workers.worker().is_accepted(command, at(0))


async def test_commands_that_an_earlier_release_had_dealt_with_still_count() -> None:
    """They name nobody, because that release asked nobody for a role."""
    workers = Workers(signed_from=2)
    for worker in (workers.worker(), workers.worker()):
        assert await worker.is_accepted(sent(None, "old"), at(1))
        await worker.demand_accepted(sent(None, "old"))
        assert not await worker.is_accepted(sent(None, "new"), at(2))
        assert not await worker.is_accepted(sent(None, "of an added partition"), at(0, partition=1))
        assert not await worker.is_accepted(sent("eve", "named"), at(1))


async def test_what_was_refused_before_signatures_stays_refused() -> None:
    workers = Workers()
    assert not await workers.worker().is_accepted(sent(None), at(1))
    workers.signed_from = 2
    assert not await workers.worker().is_accepted(sent(None), at(1))


async def test_an_outage_refuses_nobody() -> None:
    workers = Workers("olga")
    workers.outages = 2
    assert await workers.worker().is_accepted(sent("olga"), at(0))
    workers.outages = 9
    with pytest.raises(TransientError):
        await workers.worker().is_accepted(sent("olga", "later"), at(1))
    workers.outages = 0
    assert await workers.worker().is_accepted(sent("olga", "later"), at(1))


def event(**data: Any) -> Any:
    return SimpleNamespace(data=SimpleNamespace(**data))


def logged(*names: str, project: str = "p") -> Versions:
    versions = Versions()
    for name in names:
        versions.versioned(event(project=project, dataset_id=name))
    return versions


@pytest.mark.parametrize(
    ("log", "newer"),
    [
        ((), None),  # the reader is behind the consumer
        (("ds-1",), None),
        (("ds-0", "ds-1"), None),
        (("ds-1", "ds-2"), "ds-2"),
        (("ds-1", "ds-2", "ds-3"), "ds-2"),  # the same whenever it is decided
        (("ds-1", "ds-2", "ds-1"), "ds-2"),  # told of again
        (("ds-1", "ds-1"), None),
    ],
    ids=str,
)
def test_a_version_is_superseded_by_the_next_one_of_its_project(log, newer) -> None:
    assert logged(*log).superseding("p", "ds-1", Controls()) == newer
    assert logged(*log, project="q").superseding("p", "ds-1", Controls()) is None


def test_a_version_whose_run_began_is_not_superseded() -> None:
    versions = logged("ds-1", "ds-2", "ds-3")
    versions.began(event(run_id="run-1", dataset_id="ds-1", attempt=None))
    assert versions.superseding("p", "ds-1", Controls()) is None
    assert versions.superseding("p", "ds-2", Controls()) == "ds-3"
    assert (versions.run_of("ds-1"), versions.run_of("ds-2")) == ("run-1", None)


@pytest.mark.parametrize("newer", [None, "ds-2"])
def test_a_version_of_which_a_person_resumed_a_run_is_not_superseded(newer: str | None) -> None:
    """Whatever ended the run, which may have another id than the one that is trained then."""
    versions, controls = logged("ds-1", "ds-2", "ds-3"), Controls()
    for number in (1, 2):
        failed = {"run_id": f"run-{number}", "dataset_id": f"ds-{number}", "attempt": 1}
        versions.failed(event(superseded_by=newer, **failed))
    controls.apply(command(TrainAction.RESUME, project="q"))
    assert versions.superseding("p", "ds-1", controls) == "ds-2", "somebody of another project"
    controls.apply(command(TrainAction.RESUME))
    assert versions.superseding("p", "ds-1", controls) is None
    assert versions.superseding("p", "ds-2", controls) == "ds-3"


def of_training(kind: str, *, attempt: int = 1, run_id: str = "run-1", **more: Any) -> Any:
    data = SimpleNamespace(project="p", run_id=run_id, dataset_id="ds-1", attempt=attempt, **more)
    return SimpleNamespace(data=data, project="p", kind=kind)


@pytest.mark.parametrize("newer", [None, "ds-2"])
def test_a_run_that_failed_is_trained_again_by_the_event_of_its_version(newer: str | None) -> None:
    versions, version = Versions(), of_training("versioned")
    versions.versioned(version)
    if newer is None:
        versions.began(of_training("started"))
    assert versions.failed_version("p", "run-1") is None, "it runs, or waits"
    versions.failed(of_training("failed", superseded_by=newer))
    assert versions.failed_version("p", "run-1") is version
    assert versions.failed_version("other", "run-1") is None, "a run of another project"
    assert versions.failed_version("p", "run-2") is None
    versions.began(of_training("started", attempt=2))
    assert versions.failed_version("p", "run-1") is None, "it is trained again already"

"""A version that still waits for a machine when a newer one comes is dropped; one that began is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.training import (
    TrainAction,
    TrainCompleted,
    TrainControl,
    TrainFailed,
    TrainStarted,
)
from tunewheel_testing.waiting import until
from tunewheel_train.execution import Trainings
from tunewheel_train.runs import attempts, bases, starting
from tunewheel_train.runs.controls import Versions


class Worker:
    """One worker with one machine. The events of its runs go onto a log, and the worker reads that log."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.versions = Versions()
        self.told: list[Any] = []
        self.started = asyncio.Event()
        self.trainings = Trainings(
            bench.store, bench.settings, bench.controls, None, self.versions, worker=bench.worker
        )

    async def tell(self, news: Any) -> None:
        self.told.append(news)
        if isinstance(news, TrainStarted):
            self.versions.began(new_event(news, source="/t"))
            self.started.set()

    def versioned(self, event: Any) -> None:
        self.versions.versioned(new_event(event, source="/t"))

    def train(self, event: Any) -> asyncio.Task[Any]:
        self.versioned(event)
        return asyncio.create_task(self.trainings.train(event, lease=self.bench.lease, tell=self.tell))


@pytest.fixture
async def versions_of(bench):
    """Benches of versions of one project, and the events of these, oldest first."""
    made = [await bench(dataset_id=f"ds-{number}") for number in range(3)]
    return made[0], [one.event for one in made]


async def waiting(trainings: Any) -> None:
    await until(lambda: trainings._slots._waiting)


async def test_of_versions_that_wait_the_newest_alone_is_trained(versions_of, monkeypatch):
    monkeypatch.setenv("LIGHT_WAIT", "1")  # the first holds the machine until it is stopped
    bench, (first, second, third) = versions_of
    worker = Worker(bench)
    training = worker.train(first)
    await worker.started.wait()
    dropped = worker.train(second)
    await waiting(worker.trainings)
    newest = worker.train(third)
    outcome = await asyncio.wait_for(dropped, 60)
    assert isinstance(outcome, TrainFailed)
    assert (outcome.field, outcome.superseded_by, outcome.step) == ("(run)", third.dataset_id, 0)
    assert outcome.reason.startswith(f"was not begun before {third.dataset_id} superseded its version")
    assert not training.done()  # though it is older still
    run_id = next(news.run_id for news in worker.told)
    action = {"project": first.project, "run_id": run_id}
    for said in (TrainAction.PAUSE, TrainAction.RESUME):  # it goes on from its checkpoint
        bench.controls.apply(new_event(TrainControl(**action, action=said, request=said), source="/t"))
        if said is TrainAction.PAUSE:
            monkeypatch.delenv("LIGHT_WAIT")
            assert isinstance(await asyncio.wait_for(newest, 60), TrainCompleted)
    assert isinstance(await asyncio.wait_for(training, 60), TrainCompleted)
    trained = [news.dataset_id for news in worker.told if isinstance(news, TrainStarted)]
    assert second.dataset_id not in trained


async def test_nothing_is_downloaded_for_a_run_that_waits_for_a_machine(versions_of):
    bench, (_, second, _) = versions_of
    worker = Worker(bench)
    async with worker.trainings._slots.hold("another", asyncio.Event(), job="run-other"):
        training = worker.train(second)
        await waiting(worker.trainings)
        assert not list(bench.settings.runs_dir.glob("*"))
    assert isinstance(await asyncio.wait_for(training, 120), TrainCompleted)


@pytest.mark.parametrize("by", ["a newer version", TrainAction.CANCEL, TrainAction.PAUSE])
async def test_a_run_that_is_stopped_while_its_data_comes_frees_its_machine(versions_of, monkeypatch, by):
    bench, (_, second, third) = versions_of
    worker, stopped, names = Worker(bench), asyncio.Event(), list[str]()

    def say(run_id: str, action: TrainAction) -> None:
        control = TrainControl(project=second.project, run_id=run_id, action=action, request=action)
        bench.controls.apply(new_event(control, source="/t"))

    async def prepare(run: Any, *rest: Any) -> Any:
        if stopped.is_set():
            return await starting.prepare(run, *rest)
        names.append(run.run_id)
        say(run.run_id, by) if isinstance(by, TrainAction) else worker.versioned(third)
        stopped.set()
        return await asyncio.Event().wait()  # a download that never ends

    monkeypatch.setattr(attempts, "prepare", prepare)
    training = worker.train(second)
    await stopped.wait()
    async with asyncio.timeout(120), worker.trainings._slots.hold("another", asyncio.Event(), job="other"):
        assert worker.told == []
    if by is TrainAction.PAUSE:
        say(names[0], TrainAction.RESUME)
        assert isinstance(await asyncio.wait_for(training, 120), TrainCompleted)
        return
    outcome = await asyncio.wait_for(training, 120)
    assert isinstance(outcome, TrainFailed)
    assert outcome.superseded_by == (None if isinstance(by, TrainAction) else third.dataset_id)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The base models for which a process looks."""
    found: list[str] = []
    original = bases.run_process

    async def counted(action: str, job: Any, **options: Any) -> Any:
        found.append(job.base_model)
        return await original(action, job, **options)

    monkeypatch.setattr(bases, "run_process", counted)
    return found


async def test_no_process_looks_for_the_base_of_a_superseded_version(bench, searches: list[str]):
    """Each project's newest version is trained, in whatever order they come, and however often."""
    made = [await bench(dataset_id=f"{name}-{n}", project=name) for n in range(3) for name in ("one", "two")]
    worker = Worker(made[0])
    for one in made:
        worker.versioned(one.event)
    outcomes = await asyncio.gather(*(worker.train(one.event) for one in [*made, *made]))
    newer = [getattr(outcome, "superseded_by", None) for outcome in outcomes[: len(made)]]
    assert newer == ["one-1", "two-1", "one-2", "two-2", None, None]
    assert outcomes[: len(made)] == outcomes[len(made) :]
    assert len(searches) == 4, "two versions, each told of twice"


async def test_a_version_that_waits_for_its_search_when_a_newer_one_comes_needs_none(versions_of, searches):
    bench, (first, second, _) = versions_of
    worker = Worker(bench)
    slots = worker.trainings._bases._slots
    async with slots.hold("another", asyncio.Event(), job="search"):
        dropped, newest = worker.train(first), worker.train(second)
        await until(lambda: slots._waiting.get(first.project, [])[1:])
    assert (await dropped).superseded_by == second.dataset_id
    assert isinstance(await newest, TrainCompleted)
    assert len(searches) == 1


async def test_a_drop_is_told_alike_before_the_search_and_after_it(versions_of, searches):
    """A worker that is killed before it tells may have looked for the base already."""
    bench, (first, second, _) = versions_of
    one, other = Worker(bench), Worker(bench)
    async with one.trainings._slots.hold("another", asyncio.Event(), job="run-other"):
        dropped = one.train(first)
        await waiting(one.trainings)
        one.versioned(second)
        told = await dropped
    assert len(searches) == 1
    for event in (first, second):
        other.versioned(event)
    again = await other.train(first)
    assert len(searches) == 1
    assert again == told
    assert new_event(again, source="/t").id == new_event(told, source="/t").id


async def test_a_worker_that_is_killed_decides_the_same_again(versions_of):
    bench, (first, second, third) = versions_of
    one, other = Worker(bench), Worker(bench)
    one.versioned(first)
    one.versioned(second)
    told = await one.train(first)
    for event in (first, second, third):  # one more came meanwhile
        other.versioned(event)
    again = await other.train(first)
    assert isinstance(told, TrainFailed)
    assert new_event(again, source="/t").id == new_event(told, source="/t").id
    assert again == told
    assert one.told == other.told == []
    assert not (bench.settings.runs_dir / told.run_id / "work").exists()


async def test_a_run_that_began_elsewhere_is_taken_up_though_a_newer_version_is_there(versions_of):
    bench, (first, second, _) = versions_of
    worker = Worker(bench)
    name = (await Worker(bench).train(first)).run_id
    worker.versions.began(
        new_event(
            TrainStarted(
                project=first.project, run_id=name, dataset_id=first.dataset_id,
                base={"name": "m", "revision": "r"}, method="lora", total_steps=6,
            ), source="/t",
        )
    )  # fmt: skip
    await bench.store.delete([f"runs/{name}/manifest.json"])
    worker.versioned(first)
    worker.versioned(second)
    assert isinstance(await worker.train(first), TrainCompleted)
    assert [type(news) for news in worker.told].count(TrainStarted) == 1


async def test_a_dropped_run_is_trained_after_all_when_somebody_says_so(versions_of):
    bench, (first, second, _) = versions_of
    worker = Worker(bench)
    worker.versioned(first)
    worker.versioned(second)
    dropped = await worker.train(first)
    worker.versions.failed(new_event(dropped, source="/t"))
    command = TrainControl(
        project=first.project, run_id=dropped.run_id, action=TrainAction.RESUME, request="r-1"
    )
    bench.controls.apply(new_event(command, source="/t"))
    assert isinstance(await worker.train(first), TrainCompleted)
    (started,) = (news for news in worker.told if isinstance(news, TrainStarted))
    assert (dropped.attempt, started.attempt) == (1, 2), "no clock needs to tell which came later"

"""The service's side of launched runs. The cluster is in memory: what it starts is the real process of a
launched run, but for Kafka, with the light worker."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from structlog.testing import capture_logs
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, Event, new_event
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import (
    SweepProgressed,
    SweepRequested,
    TrainAction,
    TrainCompleted,
    TrainControl,
    TrainFailed,
    TrainStarted,
)
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.sweep import SweepState
from tunewheel_runtime.jobs import Lease, LeaseLost
from tunewheel_testing.adapters import BASE
from tunewheel_testing.waiting import until
from tunewheel_train.execution import Trainings
from tunewheel_train.launching.cluster import MOST_HICCUPS, ClusterTrainings
from tunewheel_train.launching.jobs import JobRefused, JobState
from tunewheel_train.launching.launch import Outcome, launch_of, read_launch
from tunewheel_train.measurements import Measured, Measurements
from tunewheel_train.one_run import NoSuchLaunch, OneRun
from tunewheel_train.runs.controls import Controls, Versions
from tunewheel_train.runs.slots import ALONE, Node
from tunewheel_train.sweeping import Sweeps


class Process:
    """What a launched run needs of its service."""

    def __init__(self, store: Any, told: list[Envelope[Any]]) -> None:
        self.store = store
        self.told = told
        self.failure: BaseException | None = None
        self.stopped = asyncio.Event()

    def new(self, data: Event, *, cause: Envelope[Any]) -> Envelope[Any]:
        return new_event(data, source="/tunewheel/train", cause=cause)

    async def publish(self, event: Envelope[Any]) -> None:
        self.told.append(event)

    def fail(self, error: BaseException) -> None:
        self.failure = error

    def stop(self) -> None:
        self.stopped.set()


def pod(
    made: Any, name: str, told: list[Envelope[Any]], cache_dir: Path, node: Node = ALONE
) -> tuple[Process, OneRun]:
    """A pod with a disk of its own."""
    settings = made.settings.model_copy(update={"cache_dir": cache_dir, "job_poll_seconds": 0.05})
    process: Any = Process(made.store, told)
    trainings = Trainings(made.store, settings, made.controls, worker=made.worker)
    sweeps = Sweeps(made.store, trainings, made.controls, known(made.event))
    return process, OneRun(process, settings, name, trainings, sweeps, node=node)


def known(version: DatasetVersioned) -> Versions:
    versions = Versions()
    versions.versioned(new_event(version, source="/t"))
    return versions


@dataclass
class Cluster:
    """Starts one pod per Job and node, at once. ``broken``: why none ever does; ``refuses``: why there is no
    Job."""

    made: Any
    folder: Path
    broken: str | None = None
    refuses: str | None = None
    nodes: int = 1
    has_room: bool = True
    """False: pods wait for a node."""
    jobs: dict[str, JobState] = field(default_factory=dict)
    told: list[Envelope[Any]] = field(default_factory=list)
    pods: list[OneRun] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    nodes_of: dict[str, int] = field(default_factory=dict)
    looks: int = 0

    async def ensure(self, name: str, *, labels: dict[str, str], one_node: bool = False) -> None:
        self.labels = labels
        self.nodes_of[name] = 1 if one_node else self.nodes
        if self.refuses:
            raise JobRefused(self.refuses)
        if name in self.jobs:
            return
        self.jobs[name] = JobState(failure=self.broken)
        if not self.broken and self.has_room:
            await self.start(name)

    async def start(self, name: str, *ranks: int) -> None:
        nodes = self.nodes_of[name]
        for rank in ranks or range(nodes):
            disk = self.folder / f"disk-{len(self.pods)}"
            _, run = pod(self.made, name, self.told, disk, Node(rank, nodes))
            self.pods.append(run)
            await run.begin()

    async def state(self, name: str) -> JobState | None:
        self.looks += 1
        return self.jobs.get(name)

    async def pause(self, name: str, *, paused: bool) -> None:
        self.jobs[name] = JobState(paused=paused)
        if paused and self.pods:
            await self.pods[-1].stop()
        elif not paused:
            await self.start(name)


@dataclass
class Desk:
    """One project's service beside a cluster."""

    made: Any
    cluster: Cluster
    controls: Controls = field(default_factory=Controls)
    patience: float = math.inf
    versions: Versions = field(default_factory=Versions)

    sweep: SweepRequested | None = None
    """What is asked for, instead of a run."""

    @property
    def event(self) -> Envelope[Any]:
        return new_event(self.sweep or self.made.event, source="/t")

    def trainings(self) -> ClusterTrainings:
        return ClusterTrainings(
            self.made.store, self.cluster, self.controls, self.versions, every=0.01, patience=self.patience
        )

    async def train(self, lease: Lease | None = None) -> Event:
        """Handle the event once; returns what was told."""
        told: list[Event] = []

        async def tell(news: Event) -> None:
            told.append(news)

        await self.trainings().train(self.event, lease or self.lease(), tell)
        (news,) = told
        return news

    def command(self, run_id: str, action: TrainAction) -> None:
        control = TrainControl(
            project=self.made.event.project, run_id=run_id, action=action, request=action.value
        )
        self.controls.apply(new_event(control, source="/t"))

    def lease(self, offset: int = 3) -> Lease:
        return Lease(TopicPartition("dataset.versioned", 0), offset)


@pytest.fixture
def desk(bench: Any, tmp_path: Path) -> Callable[..., Any]:
    async def make(*, broken: str | None = None, **changes: Any) -> Desk:
        made = await bench(**changes)
        return Desk(made, Cluster(made, tmp_path, broken))

    return make


def started(desk: Desk) -> list[Envelope[TrainStarted]]:
    return [news for news in desk.cluster.told if isinstance(news.data, TrainStarted)]


@pytest.mark.parametrize("nodes", [pytest.param(1, marks=pytest.mark.nightly("matrices")), 2])
async def test_a_launched_run_ends_as_one_that_is_trained_here(desk, nodes: int):
    one = await desk()
    one.cluster.nodes = nodes
    ended = await one.train()
    assert isinstance(ended, TrainCompleted)
    assert ended == await one.made.train()
    assert {news.causation_id for news in one.cluster.told} == {one.event.id}
    await until(lambda: all(run.ended for run in one.cluster.pods))
    assert one.cluster.labels["tunewheel.io/project"] == one.made.event.project


async def test_an_outcome_is_told_once_whatever_is_delivered_again(desk):
    one = await desk(broken="BackoffLimitExceeded: no node has a GPU")
    told: list[Event] = []

    async def tell(news: Event) -> None:
        told.append(news)

    async def dies(_: Event) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await one.trainings().train(one.event, one.lease(), dies)
    await one.trainings().train(one.event, one.lease(), tell)
    assert len(told) == 1
    # behind a run that is still trained all is delivered again: it must not be the last word once more
    await one.trainings().train(one.event, one.lease(), tell)
    assert len(told) == 1
    assert len(one.cluster.jobs) == 1


async def test_a_run_goes_on_while_its_service_goes_away_and_the_next_one_finds_it(desk, monkeypatch):
    one = await desk()
    monkeypatch.setenv("LIGHT_WAIT", "1")
    lease = one.lease()
    waiting = asyncio.create_task(one.train(lease))
    await until(lambda: started(one))
    lease.lose("moved")
    with pytest.raises(LeaseLost):
        await waiting
    other = asyncio.create_task(one.train())
    # sent once more meanwhile: two Jobs of one run would delete each other's checkpoints
    again = asyncio.create_task(one.train(one.lease(offset=9)))
    await asyncio.sleep(0.05)
    assert not other.done()
    assert len(one.cluster.pods) == 1
    # the pod is told to end, as before its node goes away, and the cluster starts another
    await one.cluster.pods[0].stop()
    assert not one.cluster.pods[0].ended
    await one.cluster.start(next(iter(one.cluster.jobs)))
    assert isinstance(await other, TrainCompleted)
    assert await again == await other
    assert len(one.cluster.jobs) == 1
    assert started(one)[-1].data.resumed_from_step > 0


@pytest.mark.nightly("kills")
async def test_nodes_with_disks_of_their_own_go_on_together_when_a_process_of_one_is_killed(
    desk, tmp_path: Path, monkeypatch
):
    one = await desk()
    one.cluster.nodes = 2
    monkeypatch.setenv("LIGHT_WAIT", "1")  # the first node would be waited for for ever
    monkeypatch.setenv("LIGHT_FAULT", f"die {tmp_path / 'store'}")
    ended = await one.train()
    assert isinstance(ended, TrainCompleted)
    assert [news.data.resumed_from_step for news in started(one)] == [0, 2]
    await until(lambda: all(run.ended for run in one.cluster.pods))
    (name,) = one.cluster.jobs
    below = await one.made.store.list(f"launches/{name}")
    assert [path.rpartition("/")[2] for path in below] == ["event.json", "outcome.json", "told"]


@pytest.mark.nightly("kills")
@pytest.mark.parametrize("rank", [0, 1])
async def test_a_pod_of_several_that_is_told_to_end_costs_no_attempt(
    desk, tmp_path: Path, monkeypatch, rank: int
):
    one = await desk()
    one.made.settings.train_attempts = 1
    one.cluster.nodes = 2
    monkeypatch.setenv("LIGHT_WAIT", "1")
    running = asyncio.create_task(one.train())
    await until(lambda: list((tmp_path / "store").glob("runs/*/checkpoints/*/checkpoint.json")))
    going = one.cluster.pods[rank]
    await going.stop()
    assert not going.ended  # the process exits 75
    (name,) = one.cluster.jobs
    await one.cluster.start(name, rank)
    assert isinstance(await running, TrainCompleted)
    assert started(one)[-1].data.resumed_from_step > 0


async def test_a_pod_that_cannot_follow_leaves_its_place_to_another(desk, tmp_path: Path):
    """The first one makes it the outcome, or finds the event whole after all."""
    one = await desk()
    one.made.settings.retry_attempts = 2
    one.made.settings.retry_first_delay_seconds = 0.001
    gone = one.made.event.manifest.model_copy(update={"path": "datasets/none.json"})
    one.made.event = one.made.event.model_copy(update={"manifest": gone})
    launch = launch_of(one.event, one.lease())
    await launch.put(one.made.store)
    process, run = pod(one.made, launch.name, [], tmp_path / "disk", Node(1, 2))
    with capture_logs() as logs:
        await run.begin()
        await process.stopped.wait()
    assert (process.failure, run.ended) == (None, False)
    (stopped,) = (line for line in logs if line["event"] == "run_stopped")
    assert "datasets/none.json" in stopped["reason"]


async def test_a_paused_run_keeps_no_pod(desk, monkeypatch):
    one = await desk()
    monkeypatch.setenv("LIGHT_WAIT", "1")
    running = asyncio.create_task(one.train())
    await until(lambda: started(one))
    begun = started(one)[0]
    one.versions.began(begun)
    one.command(begun.data.run_id, TrainAction.PAUSE)
    (name,) = one.cluster.jobs
    await until(lambda: one.cluster.jobs[name].paused)
    one.command(begun.data.run_id, TrainAction.RESUME)
    assert isinstance(await running, TrainCompleted)
    assert started(one)[-1].data.resumed_from_step > 0


@pytest.mark.parametrize("pods", ["no pod has a node", "the first pod has none"])
async def test_a_run_whose_pod_waits_for_a_node_can_be_cancelled(desk, pods):
    one = await desk()
    begun = pods == "the first pod has none"
    one.patience = 0.0 if begun else math.inf  # nobody waits for the word of a run that has not begun
    running = asyncio.create_task(began_before(one).train())
    await until(lambda: one.cluster.jobs)
    if begun:
        one.cluster.jobs |= dict.fromkeys(one.cluster.jobs, JobState(begun=True))
    one.command("run-1", TrainAction.CANCEL)
    async with asyncio.timeout(60):
        ended = await running
    assert isinstance(ended, TrainFailed)
    assert (ended.run_id, ended.field) == ("run-1", "(run)")
    assert "was cancelled" in ended.reason
    assert [job.paused for job in one.cluster.jobs.values()] == [True]


async def test_a_cancelled_run_one_of_whose_pods_is_replaced_says_by_itself_how_far_it_came(desk):
    one = await desk()
    running = asyncio.create_task(began_before(one).train())
    await until(lambda: one.cluster.jobs)
    one.cluster.jobs |= dict.fromkeys(one.cluster.jobs, JobState(begun=True))
    looks = one.cluster.looks
    await until(lambda: one.cluster.looks > looks + 1)  # a look of before still says that it has not begun
    one.command("run-1", TrainAction.CANCEL)
    await until(lambda: one.cluster.looks > looks + 4)
    (name,) = one.cluster.jobs
    launch = await read_launch(one.made.store, name)
    assert launch is not None
    said = TrainFailed(
        project=one.made.event.project, run_id="run-1", dataset_id=one.made.event.dataset_id, field="(run)",
        reason="was cancelled", step=4,
    )  # fmt: skip
    await launch.end(one.made.store, Outcome(failed=said))
    assert await running == said


def began_before(one: Desk) -> Desk:
    """A run that other pods began, and for which there is no room now."""
    one.cluster.has_room = False
    begun = TrainStarted(
        project=one.made.event.project, run_id="run-1", dataset_id=one.made.event.dataset_id,
        base=BASE, method=TrainMethod.LORA, total_steps=6,
        resumed_from_step=0,
    )  # fmt: skip
    one.versions.began(new_event(begun, source="/t"))
    return one


@pytest.mark.parametrize(
    "how",
    ["failed", *(pytest.param(how, marks=pytest.mark.nightly("matrices")) for how in ("deleted", "refused"))],
)
async def test_a_job_that_ends_without_an_outcome_fails_the_run_and_says_why(desk, how):
    why = "no node has a GPU"
    one = await desk(broken=why if how == "failed" else None)
    one.cluster.refuses = why if how == "refused" else None
    if how == "deleted":
        one.cluster.ensure = lambda *_, **__: asyncio.sleep(0)
    ended = await one.train()
    assert isinstance(ended, TrainFailed)
    assert ended.field == "(run)"
    assert ("was deleted" if how == "deleted" else why) in ended.reason
    # sent once more it is another launch
    one.cluster.broken = one.cluster.refuses = None
    one.cluster.__dict__.pop("ensure", None)
    assert isinstance(await one.train(one.lease(offset=9)), TrainCompleted)


async def test_a_cluster_that_hiccups_is_looked_at_again_and_one_that_is_away_told(desk):
    one = await desk()
    one.cluster.has_room = False
    looks = 0

    async def state(name: str) -> JobState | None:
        nonlocal looks
        looks += 1
        raise TransientError("away")

    one.cluster.state = state
    with pytest.raises(TransientError, match="away"):
        await one.train()
    assert looks == MOST_HICCUPS


async def test_what_cannot_be_trained_on_is_a_dead_letter_here(desk):
    one = await desk()
    gone = one.made.event.model_copy(
        update={"manifest": one.made.event.manifest.model_copy(update={"path": "datasets/none.json"})}
    )
    one.made.event = gone
    with pytest.raises(InvalidEvent) as caught:
        await one.train()
    assert caught.value.field == "manifest"


async def test_a_pod_of_another_store_says_so(desk, tmp_path: Path):
    one = await desk()
    process, run = pod(one.made, "tunewheel-train-none", [], tmp_path / "disk")
    await run.begin()
    await process.stopped.wait()
    assert isinstance(process.failure, NoSuchLaunch)
    assert not run.ended


def swept(one: Desk, *rates: float, **fields: Any) -> Desk:
    """A sweep is asked for."""
    recipes = tuple({"learning_rate": rate} for rate in rates)
    told = {"recipes": recipes, "max_hours": 100.0, "request": "r1", **fields}
    made = one.made.event
    one.sweep = SweepRequested(project=made.project, sweep_id="sweep-1", dataset_id=made.dataset_id, **told)
    return one


@pytest.mark.parametrize("nodes", [1, 2])
async def test_a_sweep_is_one_job_of_one_node_and_ends_as_one_that_is_trained_here(desk, nodes: int):
    one = swept(await desk(), 1e-2, 1e-3)
    one.cluster.nodes = nodes
    ended = await one.train()
    assert isinstance(ended, SweepProgressed)
    assert (ended.state, ended.best, ended.measured) == (SweepState.COMPLETED, "sweep-1-2", 2)
    assert list(one.cluster.nodes_of.values()) == [1]
    assert one.cluster.labels["tunewheel.io/sweep"] == "sweep-1"
    assert {type(news.data) for news in one.cluster.told} == {SweepProgressed}
    assert await one.made.store.list("runs") == []


async def test_a_sweep_goes_on_in_another_pod_with_what_was_measured(desk, monkeypatch):
    one = swept(await desk(), 1e-2, 1e-3)
    monkeypatch.setenv("LIGHT_WAIT", "1")
    running = asyncio.create_task(one.train())
    await until(lambda: list(one.cluster.folder.glob("disk-*/*/train/runs/*/*/checkpoint-*")))
    monkeypatch.delenv("LIGHT_WAIT")
    await one.cluster.pods[0].stop()
    assert not one.cluster.pods[0].ended
    await one.cluster.start(next(iter(one.cluster.jobs)))
    ended = await running
    assert isinstance(ended, SweepProgressed)
    assert (ended.state, ended.best, len(one.cluster.jobs)) == (SweepState.COMPLETED, "sweep-1-2", 1)


async def test_a_sweep_without_a_pod_is_cancelled_by_its_id(desk):
    one = swept(await desk(), 1e-2, 1e-3)
    one.cluster.has_room = False
    running = asyncio.create_task(one.train())
    await until(lambda: one.cluster.jobs)
    one.command("sweep-1", TrainAction.CANCEL)
    ended = await running
    assert isinstance(ended, SweepProgressed)
    assert (ended.state, ended.field, ended.reason) == (SweepState.CANCELLED, "", "was cancelled")
    assert [job.paused for job in one.cluster.jobs.values()] == [True]


async def test_a_sweep_whose_job_fails_keeps_what_was_measured_and_no_checkpoint(desk):
    one = swept(await desk(), 1e-2, 1e-3)
    one.cluster.has_room = False
    running = asyncio.create_task(one.train())
    await until(lambda: one.cluster.jobs)
    (name,) = one.cluster.jobs
    measurements = Measurements(one.made.store, one.sweep)
    run = measurements.known["sweep-1-1"].model_copy(update={"part": 0.5, "steps": 3, "validation_loss": 1.0})
    await measurements.first("sweep-1-1", 0.5, Measured(run=run, validation_examples=20))
    await one.made.store.first("runs/sweep-1-1/checkpoints/step-3/weights", b"x")
    one.cluster.jobs[name] = JobState(failure="BackoffLimitExceeded: no node has a GPU")
    ended = await running
    assert isinstance(ended, SweepProgressed)
    assert (ended.state, ended.field, ended.measured) == (SweepState.FAILED, "(run)", 1)
    assert (ended.best, ended.validation_examples) == ("sweep-1-1", 20)
    assert "no node has a GPU" in ended.reason
    assert await one.made.store.list("runs") == []


async def test_a_sweep_whose_recipe_is_wrong_is_a_dead_letter(desk):
    one = swept(await desk(), -1.0)
    with pytest.raises(InvalidEvent) as caught:
        await one.train()
    assert caught.value.field == "train.learning_rate"

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import structlog.testing
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_testing.adapters import BASE
from tunewheel_train.job import Tried
from tunewheel_train.runs.runs import Run
from tunewheel_train.runs.slots import Slots, devices_of
from tunewheel_train.settings import Settings

REF = ArtifactRef(path="x", sha256="0" * 64, size_bytes=1)
RUN = Run(
    run_id="run-1", model_id="m", project="p", dataset_id="ds-1", dataset=REF, criteria_sha256="0" * 64,
    train=REF, base=BASE, recipe=TrainSpec(),
)  # fmt: skip


def run(name: str, project: str = "p", priority: int = 5) -> Run:
    return replace(RUN, run_id=name, project=project, recipe=TrainSpec(priority=priority))


class Yard:
    """Runs that train until they are told to end, in the order in which they were let in."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.order: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.losses: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def arrive(self, one: Run) -> None:
        self.ends[one.run_id], self.losses[one.run_id] = asyncio.Event(), asyncio.Event()

        async def train() -> None:
            async with self.slots.hold(one, self.losses[one.run_id]):
                if self.losses[one.run_id].is_set():
                    return
                self.order.append(one.run_id)
                await self.ends[one.run_id].wait()

        self.tasks[one.run_id] = asyncio.create_task(train())
        await self.settle()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
def yard() -> Yard:
    return Yard(Slots(1))


async def test_one_trains_and_the_others_wait(yard: Yard):
    for name in ("a", "b", "c"):
        await yard.arrive(run(name))
    assert yard.order == ["a"]
    await yard.end("a")
    assert yard.order == ["a", "b"]


async def test_as_many_train_as_there_are_slots():
    yard = Yard(Slots(2))
    for name in ("a", "b", "c"):
        await yard.arrive(run(name))
    assert yard.order == ["a", "b"]


async def test_a_higher_priority_goes_first(yard: Yard):
    await yard.arrive(run("now"))
    await yard.arrive(run("early", priority=1))
    await yard.arrive(run("late", priority=9))
    await yard.end("now")
    assert yard.order == ["now", "late"]


async def test_of_equal_priority_the_project_that_had_the_least_goes_first(yard: Yard):
    await yard.arrive(run("a1", "a"))
    await yard.arrive(run("a2", "a"))
    await yard.arrive(run("b1", "b"))
    await yard.end("a1")
    assert yard.order == ["a1", "b1"]
    await yard.end("b1")
    assert yard.order == ["a1", "b1", "a2"]


async def test_every_time_a_run_is_let_in_counts_as_its_projects_turn(yard: Yard):
    """One that comes back from a pause, or after its process died, had the machine before."""
    for name, project in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")):
        await yard.arrive(run(name, project))
    await yard.end("a1")  # paused
    await yard.arrive(run("a1", "a"))
    for name in ("b1", "a2", "b2"):
        await yard.end(name)
    assert yard.order == ["a1", "b1", "a2", "b2", "a1"]


async def test_who_lost_its_lease_waits_no_longer_and_takes_no_slot(yard: Yard):
    for name in ("a", "b", "c"):
        await yard.arrive(run(name))
    yard.losses["b"].set()
    await yard.tasks["b"]
    await yard.end("a")
    assert yard.order == ["a", "c"]


async def test_a_run_that_fails_frees_its_slot(yard: Yard):
    with pytest.raises(RuntimeError):
        async with yard.slots.hold(run("bad"), asyncio.Event()):
            raise RuntimeError
    await yard.arrive(run("next"))
    assert yard.order == ["next"]


async def test_runs_that_train_at_once_hold_different_slots_and_the_next_the_one_that_is_free():
    slots, forever = Slots(2), asyncio.Event()
    async with slots.hold(run("a"), forever) as first:
        async with slots.hold(run("b"), forever) as second:
            assert (first, second) == (0, 1)
        async with slots.hold(run("c"), forever) as third:
            assert third == 1


def test_every_slot_has_gpus_of_its_own():
    settings = Settings(train_slots=2, train_processes=2, train_gpus="4,5, GPU-6,7")
    devices = [devices_of(slot, processes=2, gpus=settings.gpus) for slot in range(2)]
    assert devices == [("4", "5"), ("GPU-6", "7")]


def test_slots_have_the_first_gpus_where_none_are_named(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Settings(train_slots=3).gpus == ("0", "1", "2")


def test_what_the_worker_may_see_is_what_its_slots_are_given(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert Settings(train_slots=2).gpus == ("2", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # none, as CUDA reads it
    assert Settings(train_slots=2).gpus == ("-1",)


def test_more_slots_than_gpus_name_the_settings():
    with pytest.raises(ValueError, match=r"TRAIN_GPUS .* names 3 GPUs, but 2 slots of 2 processes need 4"):
        Settings(train_slots=2, train_processes=2, train_gpus="0,1,2")


async def test_who_has_to_wait_is_named_in_the_log(yard: Yard):
    with structlog.testing.capture_logs() as told:
        for name in ("a", "b", "c"):
            await yard.arrive(run(name, project=f"of-{name}"))
    assert told == [
        {"event": "run_waits", "log_level": "info", "run_id": name, "project": f"of-{name}", "ahead": ahead}
        for name, ahead in (("b", 0), ("c", 1))
    ]
    for name in ("a", "b", "c"):
        await yard.end(name)


async def test_a_run_of_a_sweep_gives_its_slot_to_a_run_of_a_turn_alone():
    yard = Yard(Slots(1))
    tried, other = (
        replace(run(name, priority=9), tried=Tried(sweep_id="sweep-1")) for name in ("tried", "other")
    )
    await yard.arrive(tried)
    await yard.arrive(other)
    assert not yard.losses["tried"].is_set()
    await yard.arrive(run("turn", priority=0))
    assert yard.losses["tried"].is_set()
    await yard.end("tried")  # once its checkpoint is written
    assert yard.order == ["tried", "turn"]
    await yard.arrive(run("next", priority=0))
    assert not yard.losses["turn"].is_set()
    for name in ("turn", "next", "other"):
        await yard.end(name)
    assert yard.order == ["tried", "turn", "next", "other"]

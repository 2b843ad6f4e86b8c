"""Which job gets a free slot, one project flooding the queue or not."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_runtime.slots import Slots


class Yard:
    """Jobs that run until they are told to end, in the order in which they were let in."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.order: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.losses: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def arrive(self, name: str, project: str = "p", priority: int = 5, *, tried: bool = False) -> None:
        self.ends[name], self.losses[name] = asyncio.Event(), asyncio.Event()

        async def run() -> None:
            lost = self.losses[name]
            async with self.slots.hold(project, lost, job=name, priority=priority, background=tried):
                if lost.is_set():
                    return
                self.order.append(name)
                await self.ends[name].wait()

        self.tasks[name] = asyncio.create_task(run())
        await self.settle()

    async def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
            await self.tasks[name]
            await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
def yard() -> Yard:
    return Yard(Slots(1))


async def test_one_runs_and_the_others_wait(yard: Yard) -> None:
    for name in ("a", "b", "c"):
        await yard.arrive(name)
    assert yard.order == ["a"]
    await yard.end("a")
    assert yard.order == ["a", "b"]


async def test_as_many_run_as_there_are_slots() -> None:
    yard = Yard(Slots(2))
    for name in ("a", "b", "c"):
        await yard.arrive(name)
    assert yard.order == ["a", "b"]


async def test_a_higher_priority_goes_first_in_its_own_project_alone(yard: Yard) -> None:
    await yard.arrive("now")
    await yard.arrive("early", priority=1)
    await yard.arrive("other", "q", priority=0)
    await yard.arrive("late", priority=9)
    await yard.end("now", "other", "late", "early")
    assert yard.order == ["now", "other", "late", "early"]


async def test_the_project_whose_turn_was_the_longest_ago_goes_first(yard: Yard) -> None:
    """A job that comes back from a pause, or after its process died, had the slot before."""
    for name, project in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")):
        await yard.arrive(name, project)
    await yard.end("a1")  # paused
    await yard.arrive("a1", "a")
    await yard.end("b1", "a2", "b2")
    assert yard.order == ["a1", "b1", "a2", "b2", "a1"]


async def test_a_project_that_comes_late_makes_up_for_no_turns_that_it_did_not_want(yard: Yard) -> None:
    for number in range(5):
        await yard.arrive(f"a{number}", "a")
        await yard.end(*(["a0", "a1", "a2"][number : number + 1]))
    for number in range(3):
        await yard.arrive(f"b{number}", "b")
    await yard.end("a3", "b0", "a4", "b1", "b2")
    assert yard.order[3:] == ["a3", "b0", "a4", "b1", "b2"]


async def test_long_jobs_of_one_project_leave_the_other_slot_to_others() -> None:
    yard = Yard(Slots(2))
    for name in ("long1", "long2", "long3"):
        await yard.arrive(name, "flood")
    for name in ("short1", "short2", "short3"):
        await yard.arrive(name, "other")
    await yard.end("long1", "short1", "short2", "short3")
    assert yard.order == ["long1", "long2", "short1", "short2", "short3", "long3"]


async def test_who_lost_its_lease_waits_no_longer_and_takes_no_slot(yard: Yard) -> None:
    for name in ("a", "b", "c"):
        await yard.arrive(name)
    yard.losses["b"].set()
    await yard.tasks["b"]
    await yard.end("a")
    assert yard.order == ["a", "c"]


async def test_a_job_that_fails_frees_its_slot(yard: Yard) -> None:
    with pytest.raises(RuntimeError):
        async with yard.slots.hold("p", asyncio.Event(), job="bad"):
            raise RuntimeError
    await yard.arrive("next")
    assert yard.order == ["next"]


async def test_jobs_that_run_at_once_hold_different_slots_and_the_next_the_one_that_is_free() -> None:
    slots, forever = Slots(2), asyncio.Event()
    async with slots.hold("a", forever, job="a") as first:
        async with slots.hold("a", forever, job="b") as second:
            assert (first, second) == (0, 1)
        async with slots.hold("a", forever, job="c") as third:
            assert third == 1


async def test_who_has_to_wait_is_named_in_the_log(yard: Yard) -> None:
    with structlog.testing.capture_logs() as told:
        for name, project in (("a", "p"), ("b", "p"), ("c", "p"), ("d", "q")):
            await yard.arrive(name, project)
    assert [(one["event"], one["job"], one["project"], one["ahead"], one["projects"]) for one in told] == [
        ("job_waits", "b", "p", 0, 1),
        ("job_waits", "c", "p", 1, 1),
        ("job_waits", "d", "q", 0, 2),
    ]
    await yard.end("a", "d", "b", "c")


async def test_a_background_job_gives_its_slot_to_any_other_job_alone(yard: Yard) -> None:
    await yard.arrive("tried", priority=9, tried=True)
    await yard.arrive("other", priority=9, tried=True)
    assert not yard.losses["tried"].is_set()
    await yard.arrive("turn", priority=0)
    assert yard.losses["tried"].is_set()
    await yard.end("tried")  # once its checkpoint is written
    assert yard.order == ["tried", "turn"]
    await yard.arrive("next", priority=0)
    assert not yard.losses["turn"].is_set()
    await yard.end("turn", "next", "other")
    assert yard.order == ["tried", "turn", "next", "other"]


@dataclass(frozen=True)
class Arrival:
    """A job that comes once ``after`` jobs have ended."""

    project: str
    after: int = 0


@dataclass
class Day:
    """The jobs of some projects on ``number`` slots: which were given a slot, in order, and who waited."""

    number: int
    arrivals: Sequence[Arrival]
    choose: random.Random
    given: list[tuple[str, int]] = field(default_factory=list)
    waits: list[dict[str, int]] = field(default_factory=list)
    """At each gift: how many jobs of each project waited, the chosen one among them."""
    holds: list[Counter[str]] = field(default_factory=list)
    """At each gift: how many slots each project held, without the one that was given."""

    def pass_by(self) -> None:
        with structlog.testing.capture_logs():
            asyncio.run(self._run())

    async def _run(self) -> None:
        slots, forever = Slots(self.number), asyncio.Event()
        waiting: Counter[str] = Counter()
        running: dict[tuple[str, int], asyncio.Event] = {}
        numbers: defaultdict[str, int] = defaultdict(int)
        tasks: list[asyncio.Task[None]] = []

        async def job(name: tuple[str, int]) -> None:
            async with slots.hold(name[0], forever, job=str(name)):
                self.given.append(name)
                self.waits.append(dict(+waiting))
                self.holds.append(Counter(project for project, _ in running))
                waiting[name[0]] -= 1
                running[name] = asyncio.Event()
                await running[name].wait()
                del running[name]

        ended, coming = 0, sorted(self.arrivals, key=lambda one: one.after)
        while coming or running or +waiting:
            while coming and coming[0].after <= ended:
                project = coming.pop(0).project
                numbers[project] += 1
                waiting[project] += 1
                tasks.append(asyncio.create_task(job((project, numbers[project]))))
                await self._settle()
            assert len(running) == min(self.number, len(running) + waiting.total()), "a slot stays free"
            if running:
                running[self.choose.choice(sorted(running))].set()
                await self._settle()
            ended += 1
        await asyncio.gather(*tasks)

    async def _settle(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)


TEAMS = ("flood", "a", "b", "c")


@st.composite
def days(draw: st.DrawFn) -> Day:
    """One project floods the queue at once; three others ask for a few jobs, whenever they like."""
    flood = [Arrival("flood") for _ in range(draw(st.integers(8, 16)))]
    ask = st.builds(Arrival, st.sampled_from(TEAMS[1:]), st.integers(0, 30))
    others = draw(st.lists(ask, min_size=3, max_size=9))
    return Day(draw(st.integers(1, 3)), [*flood, *others], random.Random(draw(st.integers(0, 2**32))))


@given(day=days())
def test_a_flood_delays_the_others_by_its_turns_and_not_by_its_jobs(day: Day) -> None:
    day.pass_by()
    assert Counter(project for project, _ in day.given) == Counter(one.project for one in day.arrivals)
    for project in TEAMS:
        turns = [number for name, number in day.given if name == project]
        assert turns == sorted(turns), "the oldest job of a project goes first"
    last: dict[str, int] = {}
    for at, (project, _) in enumerate(day.given):
        held, waited = day.holds[at], day.waits[at]
        assert all(held[project] <= held[other] for other in waited), "who holds the fewest goes first"
        equal = [other for other in waited if held[other] == held[project]]
        assert all(last.get(project, -1) <= last.get(other, -1) for other in equal), "round robin"
        last[project] = at


@given(jobs=st.lists(st.sampled_from(TEAMS), min_size=8, max_size=24), seed=st.integers(0, 2**32))
def test_on_one_slot_everybody_who_waits_has_one_job_done_before_anybody_has_two(
    jobs: list[str], seed: int
) -> None:
    """Whatever the order of arrival: the n-th job of a project is done within n rounds."""
    day = Day(1, [Arrival(project) for project in jobs], random.Random(seed))
    day.pass_by()
    position = {name: at for at, name in enumerate(day.given)}
    asked = Counter(jobs)
    for (project, number), at in position.items():
        ahead = sum(min(asked[other], number) for other in asked if other != project)
        assert at <= number - 1 + ahead + 1, "the first to arrive found a free slot, and went before its turn"

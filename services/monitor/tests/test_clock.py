from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.topics import TopicSpec
from tunewheel_monitor.clock import TRAFFIC, Clock, Progress
from tunewheel_runtime.partitions import Backlog, Settled, partition_of


class Projects:
    """What a clock looks after; the first look fails as an outage does, the third as nobody expects."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.ticked: list[str] = []
        self.failure: BaseException | None = None
        self.over = asyncio.Event()

    async def tick(self, project: str) -> None:
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.ticked.append(project)

    def failed(self, error: BaseException) -> None:
        self.failure = error
        self.over.set()


def clock(projects: Projects, own: Settled) -> Clock:
    async def settled() -> Settled:
        return own

    return Clock(0.001, lambda: ["desk", "shop"], settled, projects.tick, projects.failed)


async def test_only_projects_whose_partition_is_read_to_its_end_are_looked_after() -> None:
    projects = Projects()
    await clock(projects, Settled(64, frozenset({partition_of("shop", 64)}))).once()
    assert projects.ticked == ["shop"]
    await clock(projects, Settled(0, frozenset())).once()
    assert projects.ticked == ["shop"]


async def test_an_outage_is_passed_over_and_an_error_of_its_own_ends_the_process() -> None:
    everything = Settled(1, frozenset({0}))
    projects = Projects(TransientError("the broker is away"), None, None, RuntimeError("a fault of ours"))
    running = clock(projects, everything)
    with capture_logs() as logs:
        await running.start()
        await projects.over.wait()
        await running.stop()
    assert projects.ticked == ["desk", "shop"]
    assert str(projects.failure) == "a fault of ours"
    assert [line["event"] for line in logs] == ["clock_late"]


class Handled:
    """A service that has folded all scores; of traffic, [the end, up to where it is scored] by topic."""

    def __init__(self) -> None:
        self.traffic = {topic.name: [9, 9] for topic in TRAFFIC}

    async def backlog(self, topic: TopicSpec) -> Backlog:
        end, kept = self.traffic[topic.name]
        return Backlog({0: 4, 1: end}, {0: 4, 1: kept})

    async def settled(self, topic: TopicSpec) -> Settled:
        return Settled(1, frozenset({0}))


@pytest.mark.parametrize("topic", [topic.name for topic in TRAFFIC])
async def test_traffic_that_has_no_scores_yet_comes_before_the_clock(topic: str) -> None:
    service = Handled()
    progress = Progress(service)
    ticks: list[bool] = []
    for end, scored in [(9, 0), (9, 0), (9, 8), (9, 9), (20, 10), (30, 20), (40, 20)]:
        service.traffic[topic] = [end, scored]
        ticks.append((await progress.settled()).holds("desk"))
    assert ticks == [False, False, False, True, True, True, False]

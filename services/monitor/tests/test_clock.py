from __future__ import annotations

import asyncio

from structlog.testing import capture_logs
from tunewheel_contracts.errors import TransientError
from tunewheel_monitor.clock import Clock
from tunewheel_runtime.partitions import Settled, partition_of


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

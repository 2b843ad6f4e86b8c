"""Who may command runs: decided once, by whichever worker reads a command first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.service import Position
from tunewheel_runtime.store import ObjectStore
from tunewheel_train.runs.commands import Commands


class Workers:
    """Workers of one store, who ask the same roster; ``handled`` is what was committed when each began."""

    def __init__(self, *operators: str, handled: int = 0) -> None:
        self.store = ObjectStore("memory://")
        self.operators = set(operators)
        self.handled = handled
        self.outages = 0

    async def check(self, command: TrainControl) -> None:
        if self.outages:
            self.outages -= 1
            raise TransientError("the issuer is away")
        if command.principal is None or command.principal.name not in self.operators:
            raise InvalidEvent(field="principal", reason="lacks the role operator")

    async def _handled(self) -> Mapping[int, int]:
        return {0: self.handled}

    def worker(self) -> Commands:
        return Commands(self.store, self.check, self._handled, Backoff(3, 0.0, 0.0))


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
    workers = Workers(handled=2)
    first = workers.worker()
    await first.begin()
    workers.handled = 9  # what is refused from here on is committed too
    for worker in (first, workers.worker()):
        assert await worker.is_accepted(sent(None, "old"), at(1))
        assert not await worker.is_accepted(sent(None, "new"), at(2))
        assert not await worker.is_accepted(sent(None, "of an added partition"), at(0, partition=1))
        assert not await worker.is_accepted(sent("eve", "named"), at(1))


async def test_an_outage_refuses_nobody() -> None:
    workers = Workers("olga")
    workers.outages = 2
    assert await workers.worker().is_accepted(sent("olga"), at(0))
    workers.outages = 9
    with pytest.raises(TransientError):
        await workers.worker().is_accepted(sent("olga", "later"), at(1))
    workers.outages = 0
    assert await workers.worker().is_accepted(sent("olga", "later"), at(1))

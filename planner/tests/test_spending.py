"""What a month's runs cost: as planned while they go on, as measured once they ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from tunewheel_contracts.formats.plan import Interval, MemoryParts, TrainPlan
from tunewheel_planner.spending import (
    Cost,
    Run,
    measured_cost,
    next_month,
    planned_cost,
    spent_in_month,
)


def plan(**changes: Any) -> TrainPlan:
    one = Interval(low=1, expected=2, high=4)
    parts = dict.fromkeys(MemoryParts.model_fields, 1)
    told = {
        "method": "lora", "device": "a100-80gb", "parameters": 1, "micro_batch_size": 1, "fits": True,
        "memory": parts, "peak_bytes": 7, "available_bytes": 9, "tokens": 1, "tokens_per_second": one,
        "hours": one, "dollars": Interval(low=2, expected=6, high=20),
    }  # fmt: skip
    return TrainPlan.model_validate(told | changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Cost(2, 6)),
        ({"dollars": None}, Cost(2, 0)),
        ({"device": "cpu", "dollars": None}, Cost()),
        ({"hours": Interval(low=0, expected=0, high=0)}, Cost()),
    ],
)
def test_a_planned_run_costs_what_is_expected_of_its_device(changes: Any, expected: Cost) -> None:
    assert planned_cost(plan(**changes)) == expected


def test_a_run_that_ended_costs_what_it_took() -> None:
    assert measured_cost(plan(), wall_seconds=3600) == Cost(1, 3)
    assert planned_cost(plan(), completed=0.25) == Cost(0.5, 1.5)


def test_a_month_is_the_calendars_in_utc() -> None:
    december = datetime(2026, 12, 31, 23, tzinfo=UTC)
    east = timezone(timedelta(hours=3))
    runs = [
        Run(december, Cost(1, 10)),
        Run(datetime(2027, 1, 1, 2, tzinfo=east), Cost(2, 20)),  # 23:00 in UTC, the day before
        Run(datetime(2027, 1, 1, 1, tzinfo=UTC), Cost(4, 40)),
        Run(datetime(2025, 12, 5, tzinfo=UTC), Cost(8, 80)),
    ]
    assert spent_in_month(runs, december) == Cost(3, 30)
    assert spent_in_month(runs, next_month(december)) == Cost(4, 40)
    assert next_month(december) == datetime(2027, 1, 1, tzinfo=UTC)
    assert next_month(datetime(2026, 2, 1, tzinfo=UTC)) == datetime(2026, 3, 1, tzinfo=UTC)

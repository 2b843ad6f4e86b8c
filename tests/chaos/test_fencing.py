"""A registry stalls while a decision is under way, and its successor decides otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from .fencing import Lane, Trial, main
from .stalls import Kind

pytestmark = [pytest.mark.chaos, pytest.mark.nightly("fencing")]


@pytest.mark.parametrize("kind", ["stop", "cut"])
async def test_a_decision_that_was_on_its_way_while_another_registry_took_over_is_never_seen(
    fresh_kafka: str, tmp_path: Path, kind: Kind
):
    """It is delivered once the successor has decided on the same generation."""
    async with Lane.on(fresh_kafka, tmp_path, replicas=3) as lane:
        outcome = await lane.run(Trial(0, kind, held_back=True, after_ms=0, seconds=None))
    assert outcome.failover_seconds is not None
    assert (outcome.stale, outcome.is_identical, outcome.decided) == (0, True, "after")


def test_200_stalls_and_cuts_on_three_brokers_leave_no_stale_decision():
    """The figures are in var/nightly/fencing.json."""
    found = main([])
    assert (found["trials"], found["identical"], found["stale_visible"]) == (200, 200, 0)
    assert found["failovers"] > 150

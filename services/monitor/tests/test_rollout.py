"""The verdict on a candidate, from counts alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.formats.rollout_spec import CanaryPolicy, RolloutSpec, ShadowPolicy
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_monitor import rollout
from tunewheel_monitor.rollout import Tally, Trial, judge

AT = datetime(2026, 1, 1, tzinfo=UTC)
ROLLOUT = RolloutSpec(canary=CanaryPolicy(min_requests=20), shadow=ShadowPolicy(min_requests=5))


def trial(candidate: Tally, champion: Tally, stage: Any = "canary") -> Trial:
    return Trial("p", "new", stage, AT, candidate=candidate, champion=champion)


def completion(**changes: Any) -> InferenceCompleted:
    values: dict[str, Any] = {
        "project": "p", "completion_id": "c", "model_id": "new", "role": RouteRole.CANARY, "messages": (),
        "output": "{}", "finish_reason": "stop", "completed_at": AT,
    }  # fmt: skip
    return InferenceCompleted(**(values | changes))


@pytest.mark.parametrize(
    ("candidate", "champion", "verdict"),
    [
        (Tally(19), Tally(40), None),
        (Tally(20), Tally(19), None),
        (Tally(20), Tally(20), "passed"),
        (Tally(20, invalid=1), Tally(40), "passed"),
        (Tally(20, invalid=2), Tally(40), "failed"),
        (Tally(20, invalid=5), Tally(40, invalid=10), "passed"),
        (Tally(20, errors=2), Tally(0), "failed"),
        (Tally(20, errors=1), Tally(40), "passed"),
        (Tally(0), Tally(500), None),
        (Tally(20, incidents=8), Tally(40, incidents=16), "passed"),
        (Tally(5, incidents=15), Tally(20, incidents=60), None),
        (Tally(10, incidents=12), Tally(40), "failed"),
        (Tally(0, incidents=20), Tally(60, incidents=1), "failed"),
        (Tally(0, incidents=19), Tally(60), None),
    ],
)
def test_verdicts(candidate: Tally, champion: Tally, verdict: str | None):
    found = judge(trial(candidate, champion), ROLLOUT)
    assert (found.verdict if found else None) == verdict
    if found:
        assert found.reasons


def test_an_error_that_every_request_met_is_the_reason():
    def failing(*errors: str) -> str:
        whole = trial(Tally(), Tally())
        for number in range(20):
            error = errors[number % len(errors)]
            whole.count(completion(completion_id=f"c{number}", error=error), valid=False)
        found = judge(whole, ROLLOUT)
        assert found is not None
        return found.reasons[0]

    assert failing("cannot be served: another base").endswith(": cannot be served: another base")
    assert failing("Ada's letter is too long", "Bob's too").endswith("is above the tolerated 5.0%")


def test_a_shadow_is_judged_by_its_own_policy():
    found = judge(trial(Tally(5), Tally(5), "shadow"), ROLLOUT)
    assert found is not None
    assert found.verdict == "passed"


def test_a_canary_that_answers_everything_needs_no_champion():
    everything = RolloutSpec(canary=CanaryPolicy(min_requests=20, percent=100))
    tallies = (Tally(20), Tally(20, invalid=3), Tally(10, incidents=10))
    verdicts = [judge(trial(tally, Tally(0)), everything) for tally in tallies]
    assert [found and found.verdict for found in verdicts] == ["passed", "failed", "failed"]


def test_only_routed_traffic_since_the_stage_began_counts():
    watched = trial(Tally(), Tally())
    assert watched.count(completion(), valid=False)
    before = completion(completion_id="d", model_id="old", role=RouteRole.PRODUCTION)
    assert watched.count(before, valid=True)
    assert not watched.count(completion(pinned=True), valid=True)
    assert not watched.count(completion(completed_at=AT - timedelta(seconds=1)), valid=True)
    assert not watched.count(completion(model_id="other"), valid=True)
    assert not watched.count(completion(role=RouteRole.SHADOW), valid=True)
    assert (watched.candidate, watched.champion) == (Tally(1, 0, 1), Tally(1))


def test_a_completion_that_comes_twice_counts_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rollout, "REMEMBERED", 3)
    watched = trial(Tally(), Tally())
    for name in ("a", "b", "a", "c", "d", "e", "e", "a"):
        watched.count(completion(completion_id=name), valid=True)
    assert watched.candidate == Tally(6)  # "a" is long forgotten when it comes a third time
    watched.recount()
    assert watched.count(completion(completion_id="e"), valid=True)
    assert watched.candidate == Tally(1)


def test_only_what_the_model_failed_is_an_error_of_its_own():
    watched = trial(Tally(), Tally())
    faults: list[Any] = ["model", "engine", None]  # None: a gateway of earlier releases
    for n, fault in enumerate(faults):
        assert watched.count(completion(completion_id=f"c{n}", error="x", fault=fault), valid=False)
    assert watched.candidate == Tally(2, errors=2, incidents=1)
    assert watched.candidate.figures()["engine_incidents"] == 1
    assert "engine_incidents" not in watched.champion.figures()


def test_an_error_is_no_invalid_output():
    tally = Tally()
    tally.add(error=True, valid=False)
    tally.add(error=False, valid=False)
    assert (tally.error_rate, tally.invalid_rate) == (0.5, 1.0)
    assert tally.figures() == {"requests": 2.0, "error_rate": 0.5, "invalid_rate": 1.0}

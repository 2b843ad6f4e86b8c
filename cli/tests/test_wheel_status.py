"""A project's place on the wheel follows from its events."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tunewheel_cli.commands.tables import print_status
from tunewheel_cli.wheel_status import SHOWN, WheelReport, fold
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.topics import BY_NAME

EXAMPLES = Path(__file__).resolve().parents[2] / "contracts" / "examples"
START = datetime(2026, 1, 1, tzinfo=UTC)


def event(name: str, minute: int, **changes: Any) -> Envelope[Any]:
    """The first valid example of a topic, for project ``p``."""
    file = sorted((EXAMPLES / name / "valid").glob("*.json"))[0]
    fields = json.loads(file.read_text("utf-8")) | {"project": "p"} | changes
    data = BY_NAME[name].event.model_validate(fields)
    return new_event(data, source="/test", time=START + timedelta(minutes=minute))


def test_the_last_event_that_moves_it_decides() -> None:
    events = [
        event("project.declared", 0),
        event("dataset.versioned", 1),
        event("train.started", 2),
        event("train.completed", 3),
    ]
    places = [fold(events[: n + 1])["p"].place for n in range(len(events))]
    assert places == ["collecting records", "waiting for training", "training", "evaluating"]
    status = fold(reversed(events))["p"]
    assert (status.place, len(status.datasets), len(status.runs)) == ("evaluating", 1, 1)
    assert status.last.startswith("train.completed ")


def test_a_dropped_version_does_not_take_the_project_from_the_newer_one() -> None:
    newer, dropped = event("train.started", 1), event("train.failed", 2, superseded_by="ds-2")
    assert fold([newer, dropped])["p"].place == "training"
    assert fold([newer, event("train.failed", 2)])["p"].place == "training failed"


def test_promotion_ends_the_turn_and_a_retired_champion_does_not_count() -> None:
    promoted = event("model.promoted", 5, model_id="p-1", from_stage="canary", to_stage="production")
    retired = event("model.promoted", 6, model_id="p-0", from_stage="production", to_stage="retired")
    status = fold([promoted, retired])["p"]
    assert (status.place, status.promoted) == ("serving", {"p-1"})


def test_a_trial_that_cannot_be_ends_in_the_status_with_its_reason() -> None:
    told = {"model_id": "p-1", "from_stage": "evaluated", "to_stage": "retired"}
    reason = "passed on the base B, but the engine serves that of the champion, A"
    passed = event("eval.passed", 4)
    misfit = event("model.promoted", 5, **told, decided_by="rollout", reason=reason)
    status = fold([passed, misfit])["p"]
    assert (status.place, reason in status.last) == ("ended without a rollout, collecting records", True)
    superseded = event("model.promoted", 5, **told, decided_by=None)
    assert fold([passed, superseded])["p"].place == "passed, rolling out"


def test_an_alarm_moves_no_project_and_its_decision_is_told_to_people_and_machines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    events = [
        event("train.started", 1),
        event("drift.detected", 2, alarm_id="alarm-1f", signal="novelty"),
        event("turn.decided", 3),
    ]
    status = fold(events)["p"]
    assert (status.place, len(status.drifts)) == ("training", 1)
    turns = status.as_json()["turns"]
    assert turns["alarms"][0]["answer"]["labels_needed"] == 20
    assert turns["decision"]["step"] == "waits for labels"
    print_status(None, WheelReport(projects={"p": status}))
    printed = " ".join(capsys.readouterr().out.split())
    assert "decision: curate: waits for labels" in printed
    assert "to do: Answer the questions that wait" in printed


def test_every_topic_has_a_place_but_those_that_move_no_project() -> None:
    """What is served is no place on the wheel, nor is an alarm, or what curate makes of it."""
    unmoving = {
        "serving.desired",
        "alarm.opened",
        "drift.detected",
        "drift.resolved",
        "turn.decided",
        "turn.completed",
    }
    for name in {spec.name for spec in SHOWN} - {"model.promoted"}:
        assert bool(fold([event(name, 0)])) is (name not in unmoving), name


def test_a_long_verdict_is_cut_in_the_table_and_whole_for_machines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reason = "missed " * 100
    ended = {"from_stage": "evaluated", "to_stage": "retired", "decided_by": "rollout", "reason": reason}
    projects = fold([event("eval.passed", 1), event("model.promoted", 2, model_id="p-1", **ended)])
    assert reason.strip() in projects["p"].last
    print_status(None, WheelReport(projects=projects))
    assert capsys.readouterr().out.count("missed") < 20

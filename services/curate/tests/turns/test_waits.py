"""Each wait names who or what ends it, and people are reminded every week."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tunewheel_contracts.events.data import BuildReason
from tunewheel_contracts.events.turns import TurnDecided
from tunewheel_turns.deciding import PEOPLE, REMINDED, Step, decide, hold
from tunewheel_turns.dispatch import tell

Make = Callable[..., Any]
COLLECT = {
    "suggested_action": "collect_labels",
    "cluster": {"prompts": 9, "share": 0.1, "centroid": [1.0, 0.0], "radius": 0.3},
}


def told(desk: Any, after: timedelta = timedelta(0)) -> TurnDecided:
    state, now = desk.state(), desk.now + after
    return tell(state, decide(state, now), "shop", now)


def waits(desk: Any, after: timedelta = timedelta(0)) -> dict[str, str | None]:
    return {one.alarm_id: one.waits_for for one in told(desk, after).alarms}


def test_every_open_alarm_names_its_own_wait_whatever_the_step_is_about(log: Make) -> None:
    desk = log(alarm_seconds=600, follow={"errors": "nothing"})
    desk.alarm("labels", **COLLECT)
    desk.alarm("look", suggested_action="investigate")
    desk.alarm("left", signal="errors")
    desk.alarm("retrain")
    assert waits(desk) == {"labels": "clock", "look": "operator", "left": None, "retrain": "clock"}
    desk.now += timedelta(seconds=570)
    assert told(desk).step == Step.LABELS
    assert waits(desk) == {"labels": "annotators", "look": "operator", "left": None, "retrain": "clock"}
    desk.now += timedelta(seconds=60)
    assert waits(desk)["retrain"] == "annotators", "one turn is for both"
    desk.labelled = {"labels": 20}
    assert waits(desk) == {"labels": "curate", "look": "operator", "left": None, "retrain": "curate"}


def test_a_turn_in_flight_names_the_service_that_has_it(log: Make) -> None:
    desk, seen = log(), []
    desk.alarm()
    for step in (
        lambda: desk.ask(BuildReason.DRIFT, alarm_ids=("alarm-1",)),
        lambda: desk.version(desk.events[-1], "ds-1"),
        lambda: desk.train("ds-1"),
        lambda: desk.trained("ds-1"),
        lambda: desk._of_model("review.requested", "", "ds-1"),
        lambda: desk.judge("ds-1", "passed"),
        lambda: desk.move("ds-1", "canary"),
        lambda: desk.move("ds-1", "production"),
    ):
        step()
        seen.append(waits(desk)["alarm-1"])
    assert seen == ["curate", "train", "train", "eval", "reviewers", "registry", "monitor", "monitor"]


def test_labels_are_asked_for_also_while_a_turn_of_other_alarms_is_in_flight(log: Make) -> None:
    """Turns of an alarm that has plenty of labels may follow each other for months."""
    desk = log()
    desk.alarm("alarm-1")
    desk.begin()
    desk.alarm("alarm-2", **COLLECT)
    assert waits(desk) == {"alarm-1": "curate", "alarm-2": "annotators"}
    assert told(desk, REMINDED - timedelta(hours=1)).remind_at is not None
    desk.labelled = {"alarm-2": 20}
    assert waits(desk) == {"alarm-1": "curate", "alarm-2": "curate"}


def test_people_are_reminded_every_week_of_the_oldest_alarm_that_waits_for_them(log: Make) -> None:
    desk = log()
    raised = desk.alarm("alarm-1", **COLLECT).time
    desk.alarm("alarm-2", suggested_action="investigate")
    ids, since = set[str](), desk.now - raised
    for week in range(5):
        for late in (timedelta(0), timedelta(days=6)):
            decided = told(desk, week * REMINDED - since + late)
            assert decided.reminder == week
            assert decided.remind_at == raised + (week + 1) * REMINDED
            ids.add(decided.event_id())
    assert len(ids) == 5, "a week without any change gives a new event"
    desk.resolved("alarm-1")
    assert told(desk).remind_at == raised + timedelta(minutes=1) + REMINDED


def test_nobody_is_reminded_while_a_machine_has_the_turn_or_the_spec_wants_nothing(log: Make) -> None:
    desk = log(follow={"errors": "nothing"})
    desk.alarm("left", signal="errors")
    assert (told(desk, REMINDED).reminder, told(desk).remind_at) == (0, None)
    desk.alarm()
    desk.begin()
    assert told(desk).remind_at is None


@pytest.mark.parametrize("alarm", [{}, COLLECT], ids=["retrain", "labels"])
def test_a_turn_that_tells_nothing_any_more_is_shown_to_a_person_and_tried_by_none(
    log: Make, alarm: dict[str, Any]
) -> None:
    """Its service is gone. Another turn would wait for the same service, and more labels would not help."""
    desk = log()
    desk.alarm(**alarm)
    desk.labelled = {"alarm-1": 25}
    desk.version(desk.begin(), "ds-1")
    desk.train("ds-1")
    silent = told(desk, desk.state().stale)
    assert (silent.step, silent.alarms[0].waits_for) == (Step.BROKEN, "operator")
    assert "ds-1 is training and has no event since" in silent.evidence
    assert silent.alarms[0].tried == (desk.turn_ids["ds-1"],)
    desk.now += desk.state().stale
    desk.trained("ds-1")
    assert told(desk).step == Step.IN_FLIGHT, "the service is back"
    desk.now += desk.state().stale
    desk.serve(desk.ask(BuildReason.COMMAND, alarm_ids=("alarm-1",)), "ds-2")
    desk.complete("ds-2", "did not help")
    assert told(desk, timedelta(hours=2)).alarms[0].labels_needed == (40 if alarm else None)


def test_a_review_that_nobody_answers_waits_for_reviewers_until_a_newer_turn_begins(log: Make) -> None:
    desk = log()
    desk.alarm()
    desk.version(desk.begin(), "ds-1")
    desk.train("ds-1")
    desk.trained("ds-1")
    desk._of_model("review.requested", "", "ds-1")
    month = told(desk, timedelta(days=30))
    assert (month.step, month.alarms[0].waits_for, month.reminder) == (Step.IN_FLIGHT, "reviewers", 4)
    assert month.until is None
    assert "`tunewheel review list --project shop`" in month.next_step
    assert hold(desk.state(), BuildReason.COUNT, desk.now + desk.state().stale) is None
    desk.now += timedelta(days=30)
    desk.reject(desk.ask(BuildReason.COMMAND, alarm_ids=("alarm-1",)))
    assert told(desk).step == Step.TRIED


def test_where_the_spec_wants_suggestions_no_version_after_the_first_is_built_without_a_person(
    log: Make,
) -> None:
    desk = log({"action": "suggest"})
    assert hold(desk.state(), BuildReason.COUNT, desk.now) is None, "a project begins by itself"
    desk.serve(desk.ask(), "ds-1")
    desk.complete("ds-1", "promoted")
    for reason in (BuildReason.COUNT, BuildReason.QUIET):
        assert (hold(desk.state(), reason, desk.now) or "").startswith("drift.action is suggest")
    desk.alarm()
    suggested = told(desk, timedelta(hours=2))
    assert (suggested.step, suggested.alarms[0].waits_for) == (Step.APPROVAL, "operator")
    assert "`tunewheel dataset build --project shop`" in suggested.next_step
    desk.ask(BuildReason.COMMAND, alarm_ids=("alarm-1",))
    assert told(desk).step == Step.IN_FLIGHT


def test_an_alarm_that_reopens_another_one_has_its_tries(log: Make) -> None:
    desk = log(cooldown_seconds=0)
    desk.alarm("alarm-1", **COLLECT)
    desk.labelled = {"alarm-1": 20}
    desk.serve(desk.begin(), "ds-1")
    desk.complete("ds-1", "helped")
    desk.resolved("alarm-1")
    desk.alarm("other", **COLLECT)
    desk.alarm("again", reopens="alarm-1", **COLLECT)
    desk.resolved("again")
    desk.alarm("thrice", reopens="again", **COLLECT)
    desk.labelled = {"other": 19, "thrice": 20}
    by_name = {one.alarm_id: one for one in told(desk).alarms}
    assert (by_name["other"].labels_needed, by_name["other"].tried) == (20, ())
    assert (by_name["thrice"].labels_needed, by_name["thrice"].tried) == (40, (desk.turn_ids["ds-1"],))
    assert "ds-1 was promoted" in told(desk).evidence


@pytest.mark.parametrize(("outcome", "step"), [("helped", Step.TURN), ("did not help", Step.TRIED)])
def test_records_mend_again_what_they_mended_once_and_not_what_they_never_mended(
    log: Make, outcome: str, step: Step
) -> None:
    desk = log(cooldown_seconds=0)
    desk.alarm("alarm-1")
    desk.serve(desk.begin(), "ds-1")
    desk.complete("ds-1", outcome)
    desk.resolved("alarm-1")
    desk.alarm("again", reopens="alarm-1")
    assert desk.decide().step is step


def test_each_step_about_alarms_names_somebody(log: Make) -> None:
    desk = log(budget={"gpu_hours": 0.001})
    desk.serve(desk.ask(), "ds-1")
    desk.complete("ds-1", "promoted")
    desk.alarm()
    assert told(desk).step == Step.BUDGET
    assert waits(desk)["alarm-1"] in PEOPLE

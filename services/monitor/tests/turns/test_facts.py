"""Turns put together from events in any order."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.turns import TurnCompleted
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_monitor.turns.conclusion import conclude
from tunewheel_monitor.turns.counting import fresh
from tunewheel_monitor.turns.facts import OpenTurn, TurnLog

from .turning import START, Story


def log_of(story: Story, *, seed: int = 0, twice: bool = True) -> TurnLog:
    """Apply what was told in an order of its own, and all of it again."""
    events = list(story.events)
    random.Random(seed).shuffle(events)
    log = TurnLog()
    for event in events * (2 if twice else 1):
        log.apply(event)
    return log


def only(story: Story) -> OpenTurn:
    (turn,) = log_of(story).open("desk")
    return turn


def over(turn: OpenTurn) -> TurnCompleted | None:
    """Return the end of a turn, a day after whose model served nobody has asked anything."""
    return conclude(fresh(), turn, DriftSpec(), START + timedelta(days=1))


def ended(story: Story) -> TurnCompleted | None:
    return over(only(story))


@pytest.mark.parametrize("seed", range(5))
def test_a_turn_is_the_same_in_whatever_order_its_events_come(seed: int) -> None:
    story = Story()
    story.until_production()
    (turn,) = log_of(story, seed=seed).open("desk")
    assert [alarm.alarm_id for alarm in turn.alarms] == ["alarm-1"]
    report = turn.report
    assert (report.dataset_id, report.run_id, report.model_id) == ("ds-2", "run-ds-2", "desk-2")
    assert turn.turn.course.served_at == report.ended_at == story.events[-1].time
    assert report.verdicts == (story.events[-3].id, story.events[-2].id)
    assert report.cost == {"labels": 150.0, "hours": 0.5}
    assert report.before["held_out_label_accuracy"] == 0.5
    assert report.after["held_out_label_accuracy"] == 0.7


def test_new_examples_are_those_that_the_version_before_did_not_have() -> None:
    story = Story()
    story.version(story.request("r-0"), "ds-1", examples=120)
    story.version(story.request("r-1"), "ds-2", examples=150)
    assert [turn.report.cost["labels"] for turn in log_of(story).open("desk")] == [120.0, 30.0]


def test_alarms_that_were_over_or_came_later_are_not_the_turns() -> None:
    story = Story()
    story.alarm("alarm-1")
    story.resolved("alarm-1")
    story.alarm("alarm-2")
    story.request()
    story.alarm("alarm-3")
    assert [alarm.alarm_id for alarm in only(story).alarms] == ["alarm-2"]


def test_a_request_names_the_alarms_it_is_about() -> None:
    story = Story()
    story.alarm("alarm-1")
    story.alarm("alarm-2")
    story.request(alarm_ids=("alarm-2",))
    assert [alarm.alarm_id for alarm in only(story).alarms] == ["alarm-2"]


def test_clusters_are_watched_while_their_alarm_is_open_or_their_turn_goes_on() -> None:
    story = Story()
    story.alarm("alarm-1")
    story.alarm("alarm-2", cluster=None)
    assert [one.alarm_id for one in log_of(story).clusters("desk")] == ["alarm-1"]
    story.request()
    story.resolved("alarm-1")
    assert [one.alarm_id for one in log_of(story).clusters("desk")] == ["alarm-1"]
    turn = only(story)
    story.add(turn.report.model_copy(update={"outcome": "helped"}))
    assert not log_of(story).clusters("desk")
    assert not log_of(story).open("desk")


def _after_training(then: Callable[[Story], object]) -> Callable[[Story], object]:
    def tell(story: Story) -> None:
        story.trained()
        then(story)

    return tell


ENDS: dict[str, tuple[Callable[[Story], object], str, str]] = {
    "rejected": (_after_training(lambda s: s.verdict("eval.failed")), "rejected", "is .4"),
    "undecided": (_after_training(lambda s: s.verdict("eval.undecided")), "undecided by evaluation", "is .4"),
    "no model": (lambda s: s.train_failed(), "failed", "base_model: is away"),
    "newer": (lambda s: s.train_failed(superseded_by="ds-3"), "superseded", "ds-3 is newer"),
    "rolled back": (_after_training(lambda s: s.rolled_back()), "rolled back", "10 % invalid"),
    "retired": (
        _after_training(lambda s: s.moved(Stage.RETIRED, reason="no traffic")),
        "retired",
        "no traffic",
    ),
    "undecided in its trial": (
        _after_training(lambda s: s.undecided_in_trial("cannot tell")),
        "undecided by evaluation",
        "cannot tell",
    ),
    "by people": (_after_training(lambda s: s.moved(Stage.REJECTED, reason="wrong")), "rejected", "wrong"),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_turn_ends_where_its_version_goes_no_further(name: str) -> None:
    tell, outcome, reason = ENDS[name]
    story = Story()
    story.version(story.request())
    tell(story)
    end = ended(story)
    assert end is not None
    assert (end.outcome, end.reasons, end.ended_at) == (outcome, (reason,), story.events[-1].time)


def test_refused_records_end_it() -> None:
    story = Story()
    story.refused(story.request())
    end = ended(story)
    assert end is not None
    assert (end.outcome, end.reasons) == ("failed", ("too few",))


def test_the_same_records_again_change_nothing() -> None:
    story = Story()
    story.version(story.request("r-1"))
    story.version(story.request("r-2"))
    first, second = (over(turn) for turn in log_of(story).open("desk"))
    assert first is None
    assert second is not None
    assert second.outcome == "unchanged"


def test_a_run_that_is_judged_again_and_passes_goes_on() -> None:
    story = Story()
    story.version(story.request())
    story.trained()
    story.verdict("eval.failed")
    story.pass_time()
    story.verdict()
    assert ended(story) is None


@pytest.mark.parametrize("kind", ["eval.failed", "eval.undecided"])
@pytest.mark.parametrize("stage", [Stage.EVALUATED, Stage.CANARY])
def test_what_passed_goes_on_whatever_a_late_verdict_says_until_a_step_ends_it(
    stage: Stage, kind: Any
) -> None:
    """The registry leaves a candidate where it is that lost to a champion of before, or about which a person
    asked eval once more and eval could not tell."""
    story = Story()
    story.version(story.request())
    story.trained()
    story.verdict()
    story.moved(stage)
    story.verdict(kind)
    assert ended(story) is None
    story.moved(Stage.EVALUATED, reason="cannot tell", held_up=True)
    end = ended(story)
    assert end is not None
    assert (end.outcome, end.reasons) == ("undecided by evaluation", ("cannot tell",))
    story.moved(Stage.CANARY)
    assert ended(story) is None
    story.rolled_back()
    end = ended(story)
    assert end is not None
    assert end.outcome == "rolled back"


def test_steps_have_the_registry_s_order_whatever_the_clock_of_the_one_that_took_over() -> None:
    story = Story()
    story.version(story.request())
    story.trained()
    story.moved(Stage.PRODUCTION, generation=5)
    story.now -= 2 * story.every
    story.rolled_back(generation=6)
    end = ended(story)
    assert end is not None
    assert end.outcome == "rolled back"


def test_a_model_that_a_later_one_replaced_has_left() -> None:
    story = Story()
    story.until_production()
    left = story.moved(Stage.RETIRED).time
    end = ended(story)
    assert end is not None
    assert (end.outcome, end.ended_at) == ("undecided", left)


def test_a_request_that_names_no_records_is_no_turn() -> None:
    story = Story()
    story.request(records_upto=None)
    log = log_of(story)
    assert not log.open("desk")
    assert not log.open("unheard-of")
    assert not log.clusters("unheard-of")


def test_a_run_that_is_trained_again_is_open_again_and_its_next_end_is_a_revision() -> None:
    story = Story()
    story.version(story.request())
    story.train_failed()
    first = only(story)
    told = TurnCompleted(
        project="desk", turn_id=first.report.turn_id, outcome="failed", began_at=START, ended_at=START
    )
    story.add(told)
    assert not log_of(story).open("desk")
    story.started()
    again = only(story)
    assert (over(again), again.report.revision) == (None, 1)
    assert again.conclusion != first.conclusion, "the first end keeps nobody from telling the next"
    story.trained()
    story.verdict("eval.failed")
    rejected = ended(story)
    assert rejected is not None
    assert (rejected.outcome, rejected.revision) == ("rejected", 1)
    story.add(told.model_copy(update={"outcome": "rejected", "revision": 1}))
    assert not log_of(story).open("desk")
    assert story.events[-1].id != story.events[3].id


def test_a_turn_that_helped_and_is_rolled_back_later_is_told_again_and_once_more_where_it_serves_again() -> (
    None
):
    story = Story()
    story.until_production()
    helped = only(story).report.model_copy(update={"outcome": "helped"})
    story.add(helped)
    assert not log_of(story).open("desk")
    story.rolled_back(from_stage="production")
    again = only(story)
    told = over(again)
    assert told is not None
    assert (told.outcome, told.revision, told.ce_subject) == ("rolled back", 1, helped.turn_id)
    assert told.record_key == helped.record_key, "compaction keeps the latest of the turn"
    story.add(told)
    assert not log_of(story).open("desk")
    story.moved(Stage.PRODUCTION)
    assert only(story).report.revision == 2


def test_a_turn_that_was_told_to_an_earlier_release_is_not_told_again_until_it_changes() -> None:
    story = Story()
    story.until_production()
    report = only(story).report.model_dump() | {"outcome": "did not help"}
    story.add(TurnCompleted.model_validate(report))
    story.moved(Stage.RETIRED)
    assert not log_of(story).open("desk")


def test_a_person_s_promotion_after_a_refusal_is_followed_until_it_is_known_whether_it_helped() -> None:
    story = Story()
    story.alarm()
    story.version(story.request())
    story.trained()
    story.verdict("eval.failed")
    rejected = ended(story)
    assert rejected is not None
    story.add(rejected)
    story.moved(Stage.PRODUCTION, decided_by="command")
    assert (rejected.outcome, only(story).report.revision) == ("rejected", 1)


def test_a_request_that_a_later_one_was_answered_before_has_failed() -> None:
    story = Story()
    story.request("r-1")
    story.version(story.request("r-2"))
    first, second = (over(turn) for turn in log_of(story).open("desk"))
    assert first is not None
    assert (first.outcome, second) == ("failed", None)

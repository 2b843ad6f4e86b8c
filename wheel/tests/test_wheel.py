"""Alarms and turns of a project, from its events, in any order, and what people read of them."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.identity import turn_id_of
from tunewheel_testing.story import Story, example, model_of
from tunewheel_wheel.facts import TOPICS, Facts
from tunewheel_wheel.report import UNDECIDED, report, stage_of
from tunewheel_wheel.turn import Turn, TurnEnd, TurnStage
from tunewheel_wheel.wheel import STALE, Wheel

MODEL = model_of("ds-1")


class Desk(Story):
    """A story, and what the wheel makes of it."""

    def alarm(self, name: str = "alarm-1f", **told: Any) -> None:
        novelty = {
            "signal": "novelty", "suggested_action": "collect_labels", "effect": 0.48,
            "effect_unit": "share of novel questions",
        }  # fmt: skip
        self.say("drift.detected", alarm_id=name, **novelty | told)

    def move(self, stage: str, **told: Any) -> None:
        fields = {"from_stage": "evaluated", "to_stage": stage, "cause": f"{len(self.events)}"}
        self.say("model.promoted", model_id=MODEL, **fields | told)

    def wheel(self) -> Wheel:
        return fold(self.events)

    def in_flight(self, *, later: timedelta = timedelta(0)) -> list[Turn]:
        return self.wheel().in_flight(self.now + later)

    def told(self) -> dict[str, str]:
        return dict(report(self.wheel(), self.now))

    def turn(self) -> Turn:
        (turn,) = self.wheel().turns
        return turn


def fold(events: list[Envelope[Any]]) -> Wheel:
    wheel = Wheel()
    for event in events:
        wheel.apply(event)
    return wheel


@pytest.fixture
def story() -> Desk:
    return Desk()


def test_an_alarm_shows_what_waits_and_what_a_person_does(story: Desk) -> None:
    story.alarm()
    assert UNDECIDED in story.told()["alarm"]
    story.say("turn.decided", until="2026-03-02T09:00:00Z")
    told = story.told()
    assert told["alarm"] == (
        "alarm-1f: novelty, raised 2026-03-02 08:00 UTC (2 min ago): share of novel questions 0.48; "
        "reopens alarm-0b7e22c91d40; suggests: collect labels; leads to: collect labels, has 3 of "
        "the 20 it needs, waits for: annotators"
    )
    assert told["decision"] == (
        "curate: waits for labels: alarm-1f (novelty): 3 of 20 labels near the cluster; the clock ends that "
        "at 2026-03-02 09:00 UTC; 37.50 of 50 dollars are left this month"
    )
    assert "tunewheel label list" in told["to do"]
    story.say("drift.resolved", alarm_id="alarm-1f")
    assert story.told() == {}, "the decision was about an alarm that is over"


def test_an_alarm_whose_figures_have_left_the_log_is_still_open(story: Desk) -> None:
    opened = {"signal": "novelty", "suggested_action": "collect_labels"}
    story.say("alarm.opened", alarm_id="alarm-1f", **opened)
    (line,) = report(story.wheel(), story.now)
    assert line.about == "alarm"
    assert "novelty" in line.text
    assert "collect labels" in line.text
    assert "its figures are no longer on the log" in line.text
    story.alarm()
    for events in (story.events, story.events[::-1]):
        (alarm,) = fold(events).open_alarms.values()
        assert alarm.data.effect == 0.48, "whichever of the two is read first"
    story.say("drift.resolved", alarm_id="alarm-1f")
    assert report(story.wheel(), story.now) == []


def test_an_alarm_about_documents_says_what_they_lack(story: Desk) -> None:
    lacking = {"prompts": 90, "share": 0.2, "keywords": ["solar", "roof"]}
    story.alarm(signal="documents", suggested_action="update_documents", cluster=lacking)
    assert "suggests: publish documents about solar, roof" in story.told()["alarm"]
    story.alarm("alarm-2", signal="refusals", suggested_action="update_documents", cluster=None)
    assert "suggests: update documents" in story.told()["alarm"]


def test_the_latest_decision_holds_also_where_an_earlier_one_holds_again(story: Desk) -> None:
    story.alarm()
    first = story.say("turn.decided")
    story.say("turn.decided", step="cools down")
    again = story.say("turn.decided")
    assert first.id == again.id
    assert "waits for labels" in story.told()["decision"]


def test_a_turn_is_followed_from_its_request_to_its_end(story: Desk) -> None:
    def stage() -> str:
        (turn,) = story.in_flight()
        return stage_of(turn)

    request = story.request(alarm_ids=("alarm-1f",), reason="drift")
    stages = [stage()]
    story.version(request, "ds-1")
    stages.append(stage())
    story.train("started", "ds-1")
    story.train("progressed", "ds-1", step=12, total_steps=62, eta_seconds=400)
    stages.append(stage())
    story.train("completed", "ds-1")
    stages.append(stage())
    for place in ("shadow", "canary", "production"):
        story.move(place)
        stages.append(stage())
    assert stages == [
        "its dataset version is being built",
        "waits for training",
        "in training, step 12 of 62, 400 s left",
        "in evaluation",
        "in shadow",
        "in canary",
        "in production, its effect is being measured",
    ]
    assert "asked for by drift for alarm-1f: in production" in story.told()["turn in flight"]
    story.say("turn.completed", turn_id=turn_id_of(request.id), next_step="Rate some answers.")
    (ended,) = story.wheel().turns
    assert stage_of(ended) == "in production, its effect was measured"
    told = story.told()
    assert "turn in flight" not in told
    assert "helped; novel questions fell" in told["last turn"]
    assert "before and after: novel 0.31 → 0.04; cost 0.5 gpu hours, 24 labels; took 3 h" in told["last turn"]
    assert told["to do"] == "Rate some answers."


@pytest.mark.parametrize(
    "end", ["dataset.rejected", "train.failed", "eval.failed", "eval.undecided", "moved"]
)
def test_a_turn_that_ended_is_in_flight_no_more_though_the_monitor_has_not_said_so(
    story: Desk, end: str
) -> None:
    request = story.request()
    if end == "dataset.rejected":
        story.say(end, request)
    else:
        story.version(request, "ds-1")
        if end != "train.failed":
            story.train("completed", "ds-1")
        if end == "moved":
            story.say("model.rolledback", model_id=MODEL)
        elif end == "train.failed":
            story.train("failed", "ds-1")
        else:
            story.judge(end, "ds-1")
    assert story.in_flight() == []


def test_a_request_that_a_later_one_was_answered_before_waits_for_nothing(story: Desk) -> None:
    story.request("r-1")
    story.version(story.request("r-2"), "ds-1")
    story.request("r-3")
    assert [turn.dataset_id for turn in story.in_flight()] == ["ds-1", None]


def test_a_turn_that_tells_nothing_for_a_week_is_waited_for_no_more(story: Desk) -> None:
    story.version(story.request(), "ds-1")
    nearly = STALE - timedelta(minutes=2)
    assert story.in_flight(later=nearly)
    assert not story.in_flight(later=STALE)
    story.train("started", "ds-1")
    story.train("progressed", "ds-1", step=12, total_steps=62, eta_seconds=400)
    assert story.in_flight(later=nearly), "each step is news"
    assert not story.in_flight(later=STALE)
    spec = example("project.declared", "helpdesk")["spec"] | {
        "project": "desk",
        "rollout": {"canary": {"deadline_seconds": 864_000}},
    }
    undecided = {"rollout": {"undecided": {"days": 10}}}
    for declared in (spec, spec | undecided):
        story.say("project.declared", spec=declared)
        story.train("progressed", "ds-1", step=13, total_steps=62, eta_seconds=400)
        assert story.in_flight(later=timedelta(days=11, minutes=-5)), "a trial of ten days, and one more"
        assert not story.in_flight(later=timedelta(days=11))


@pytest.mark.parametrize(
    ("stage", "words"),
    [("evaluated", "waits for its rollout"), ("canary", "in canary"), ("production", "in production")],
)
def test_a_model_that_passed_keeps_its_stage_though_it_is_judged_again(
    story: Desk, stage: str, words: str
) -> None:
    story.version(story.request(), "ds-1")
    story.train("completed", "ds-1")
    story.move(stage)
    for verdict in ("eval.passed", "eval.failed"):
        story.judge(verdict, "ds-1")
        (turn,) = story.in_flight()
        assert words in stage_of(turn)


def test_a_model_whose_verdict_against_the_present_champion_is_undecided_ends_its_turn(story: Desk) -> None:
    story.version(story.request(), "ds-1")
    story.train("completed", "ds-1")
    story.move("evaluated")
    story.move("evaluated", held_up=True)
    assert not story.in_flight()


DOUBTED = {"held_up": True, "undecided": True}


def trained(story: Desk) -> None:
    story.version(story.request(), "ds-1")
    story.train("completed", "ds-1")


def test_an_undecided_model_that_has_a_trial_before_it_does_not_end_its_turn(story: Desk) -> None:
    trained(story)
    story.judge("eval.undecided", "ds-1", moves_model=True)
    assert story.in_flight(), "the registry has not answered yet"
    story.move("evaluated", **DOUBTED, to_show=-0.05)
    assert "undecided by its evaluation" in stage_of(story.in_flight()[0])
    story.move("shadow", to_show=-0.05)
    assert "must be shown to differ by more than -0.05" in stage_of(story.in_flight()[0])
    story.move("retired", decided_by="rollout")
    (turn,) = story.wheel().turns
    assert (turn.stage, turn.end) == (TurnStage.SHADOW, TurnEnd.UNDECIDED)


def test_an_undecided_model_without_a_trial_ends_its_turn_in_a_stage_of_its_own(story: Desk) -> None:
    trained(story)
    story.move("evaluated", **DOUBTED)
    (turn,) = story.wheel().turns
    assert (turn.stage, turn.end) == (TurnStage.UNDECIDED, TurnEnd.UNDECIDED)
    assert story.wheel().facts.models.stages == {MODEL: "undecided"}


def test_after_a_pass_a_trial_without_a_verdict_is_no_undecided_evaluation(story: Desk) -> None:
    trained(story)
    story.move("evaluated", **DOUBTED, to_show=-0.05)
    story.move("shadow", to_show=-0.05)
    story.move("shadow")
    story.move("retired", decided_by="rollout")
    assert story.wheel().turns[0].end is TurnEnd.RETIRED


def test_the_report_says_what_is_left_of_a_margin(story: Desk) -> None:
    criteria = [{"metric": "label_accuracy", "over_champion": -0.15}, {"metric": "rouge_l", "minimum": 0.1}]
    spec = example("project.declared", "helpdesk")["spec"] | {"project": "desk", "criteria": criteria}
    story.say("project.declared", spec=spec)
    story.say("serving.desired", generation=2, spent=0.04)
    story.say("serving.desired", generation=1)
    assert story.told()["margin"] == (
        "0.11 of 0.15 label accuracy is left: the champion may be worse than the best champion so far by 0.04"
    )
    story.say("serving.desired", generation=3)
    assert "margin" not in story.told()
    story.move("production", decided_by="command", replaces="desk-1")
    assert story.told()["margin"] == f"a person promoted {MODEL}; its difference from desk-1 was not measured"


def test_the_latest_step_is_that_of_the_highest_generation(story: Desk) -> None:
    story.version(story.request(), "ds-1")
    story.train("completed", "ds-1")
    story.move("rejected", generation=6)
    story.move("canary", generation=5)
    assert not story.in_flight()


def test_an_alarm_without_a_name_is_over_once_a_version_is_asked_for(story: Desk) -> None:
    story.say("drift.detected", alarm_id=None)
    assert [*story.wheel().open_alarms] == [story.events[0].id]
    story.request()
    assert not story.wheel().open_alarms, "nothing will resolve it"
    story.say("drift.detected", alarm_id=None, detector="format")
    assert [*story.wheel().open_alarms] == [story.events[-1].id]


def test_texts_of_users_are_not_kept(story: Desk) -> None:
    example = {"completion_id": "c-1", "excerpt": "my own words", "score": 0.5}
    story.say("drift.detected", alarm_id="alarm-1f", examples=[example])
    assert "my own words" in repr(story.events)
    assert "my own words" not in repr(vars(story.wheel()))


def test_order_and_repetition_change_nothing(story: Desk) -> None:
    story.alarm()
    request = story.request(alarm_ids=("alarm-1f",), reason="drift")
    for decision in ("waits for labels", "cools down"):
        story.say("turn.decided", step=decision)
    story.version(request, "ds-1")
    story.train("started", "ds-1")
    story.train("completed", "ds-1")
    story.move("canary")
    story.alarm("alarm-2")
    expected = report(story.wheel(), story.now), story.wheel().turns
    assert [*story.wheel().open_alarms] == ["alarm-1f", "alarm-2"]
    shuffled = random.Random(7)
    for _ in range(20):
        events = story.events * 2
        shuffled.shuffle(events)
        assert (report(fold(events), story.now), fold(events).turns) == expected


def test_every_topic_that_is_read_is_used() -> None:
    for spec in TOPICS:
        story, facts = Desk(), Facts()
        told = {"records_upto": {"0": 3}} if spec.name == "dataset.requested" else {}
        before = repr(vars(facts)) + repr(vars(facts.models))
        facts.apply(story.say(spec.name, **told))
        assert repr(vars(facts)) + repr(vars(facts.models)) != before, spec.name


def test_a_run_that_is_trained_again_reopens_its_turn_though_its_end_was_told(story: Desk) -> None:
    request = story.request()
    story.version(request, "ds-1")
    story.train("started", "ds-1", resumed_from_step=0)
    story.train("failed", "ds-1", like="diverged")
    assert (story.turn().stage, story.turn().end) == (TurnStage.TRAINING, TurnEnd.UNTRAINED)
    story.say("turn.completed", request, turn_id=turn_id_of(request.id), outcome="failed")
    again = story.train("started", "ds-1", resumed_from_step=0)
    assert again.id == story.events[2].id, "a start from the first step has the first start's id"
    for events in (story.events, story.events[::-1]):
        (turn,) = fold(events).in_flight(story.now)
        assert (turn.stage, turn.since) == (TurnStage.TRAINING, again.time)
        assert fold(events).last is None
    story.train("completed", "ds-1")
    story.move("production")
    assert [turn.stage for turn in story.in_flight()] == [TurnStage.PRODUCTION]
    story.say("turn.completed", request, turn_id=turn_id_of(request.id), outcome="helped")
    assert (story.in_flight(), story.turn().end) == ([], TurnEnd.COMPLETED)


def test_a_run_that_fails_again_is_over(story: Desk) -> None:
    story.version(story.request(), "ds-1")
    for step in (0, 20):
        story.train("started", "ds-1", resumed_from_step=step)
        story.train("progressed", "ds-1", step=step + 9)
        story.train("failed", "ds-1", like="diverged")
    assert (story.turn().end, story.turn().since) == (TurnEnd.UNTRAINED, story.events[-1].time)


def test_the_same_records_again_are_no_new_turn_of_the_version(story: Desk) -> None:
    story.version(story.request("r-1"), "ds-1")
    story.version(story.request("r-2"), "ds-1")
    first, second = story.wheel().turns
    assert (first.end, second.end) == (None, TurnEnd.UNCHANGED)


@pytest.mark.parametrize(
    ("told", "end"),
    [
        ({"to_stage": "rejected", "decided_by": "criteria"}, TurnEnd.FAILED),
        ({"to_stage": "rejected", "decided_by": "command"}, TurnEnd.REJECTED),
        ({"to_stage": "retired", "decided_by": "criteria"}, TurnEnd.UNDECIDED),
        ({"to_stage": "retired", "decided_by": "rollout"}, TurnEnd.RETIRED),
    ],
)
def test_the_registry_says_how_a_turn_ended_and_in_which_stage(
    story: Desk, told: dict[str, str], end: TurnEnd
) -> None:
    story.version(story.request(), "ds-1")
    story.train("completed", "ds-1")
    story.move("canary", generation=4)
    story.move(told.pop("to_stage"), generation=5, **told)
    assert (story.turn().stage, story.turn().end) == (TurnStage.CANARY, end)
    served = Desk()
    served.version(served.request(), "ds-1")
    served.train("completed", "ds-1")
    served.move("production", generation=4)
    served.move("retired", generation=5)
    assert (served.turn().stage, served.turn().end) == (TurnStage.PRODUCTION, TurnEnd.REPLACED)


def test_a_project_is_where_its_latest_turn_is_and_a_dropped_version_has_no_say(story: Desk) -> None:
    def place() -> tuple[str, str | None]:
        course = story.wheel().place
        assert course is not None
        return course.stage.value, course.end.value if course.end else None

    story.version(story.request("r-1"), "ds-1")
    story.version(story.request("r-2"), "ds-2")
    story.train("started", "ds-2")
    story.train("failed", "ds-1", like="superseded", superseded_by="ds-2")
    assert place() == ("training", None)
    story.train("failed", "ds-2", like="diverged")
    assert place() == ("training", "untrained")
    story.request("r-3")
    assert place() == ("building", None)


def test_a_version_that_no_known_request_asked_for_has_a_place_too(story: Desk) -> None:
    story.train("started", "ds-1")
    wheel = story.wheel()
    assert (wheel.turns, wheel.place and wheel.place.stage) == ((), TurnStage.TRAINING)


@pytest.mark.parametrize("order", [1, -1])
def test_the_step_that_brought_a_model_to_its_stage_is_the_first_of_those_that_leave_it_there(
    story: Desk, order: int
) -> None:
    for generation, stage in enumerate(("shadow", "canary", "shadow", "shadow"), start=1):
        story.move(stage, generation=generation)
    models = fold(story.events[::order]).facts.models
    assert models.entries[MODEL].data.generation == 3
    assert models.latest[MODEL].data.generation == 4


def test_a_turn_is_for_the_alarms_that_its_request_names_or_for_those_that_were_open_then(
    story: Desk,
) -> None:
    for name in ("alarm-over", "alarm-1", "alarm-2"):
        story.alarm(name)
    story.say("drift.resolved", alarm_id="alarm-over", resolved_at=story.now)
    story.request("r-1")
    story.request("r-2", alarm_ids=["alarm-2"])
    story.alarm("alarm-later")
    for events in (story.events, story.events[::-1]):
        assert [turn.alarms for turn in fold(events).turns] == [("alarm-1", "alarm-2"), ("alarm-2",)]


def test_a_failure_ends_its_attempt_and_the_next_attempt_begins_the_turn_again_whatever_clocks_say(
    story: Desk,
) -> None:
    story.version(story.request(), "ds-1")
    for number in (1, 2):
        story.now -= timedelta(hours=number)  # another worker
        story.train("started", "ds-1", attempt=number)
        assert (story.turn().stage, story.turn().end) == (TurnStage.TRAINING, None)
        story.now -= timedelta(hours=number)
        story.train("failed", "ds-1", like="diverged", attempt=number)
        assert story.turn().end is TurnEnd.UNTRAINED

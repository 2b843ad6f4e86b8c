"""Alarms and turns of a project, from its events, in any order, and what people read of them."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.identity import turn_id_of
from tunewheel_contracts.topics import BY_NAME
from tunewheel_contracts.turn_report import UNDECIDED, as_json, report
from tunewheel_contracts.turn_status import STALE, TOPICS, TurnInFlight, TurnStatus

EXAMPLES = Path(__file__).parents[1] / "examples"
START = datetime(2026, 11, 26, 12, tzinfo=UTC)
MODEL = "helpdesk-acba25512101"


class Story:
    """Events of one project, a minute apart."""

    def __init__(self) -> None:
        self.events: list[Envelope[Any]] = []

    def say(self, topic: str, by: Envelope[Any] | None = None, /, **told: Any) -> Envelope[Any]:
        """Add an event like the contracts' first example, but for ``told``."""
        file = sorted((EXAMPLES / topic / "valid").glob("*.json"))[0]
        data = BY_NAME[topic].event.model_validate(json.loads(file.read_text()) | {"project": "desk"} | told)
        self.events.append(new_event(data, source="/test", cause=by, time=self.now))
        return self.events[-1]

    @property
    def now(self) -> datetime:
        return START + timedelta(minutes=len(self.events))

    def alarm(self, name: str = "alarm-1f", **told: Any) -> None:
        novelty = {
            "signal": "novelty", "suggested_action": "collect_labels", "effect": 0.48,
            "effect_unit": "share of novel questions",
        }  # fmt: skip
        self.say("drift.detected", alarm_id=name, **novelty | told)

    def request(self, name: str = "r-1", **told: Any) -> Envelope[Any]:
        return self.say("dataset.requested", request=name, records_upto={"0": 3}, reason="drift", **told)

    def trained(self) -> None:
        file = sorted((EXAMPLES / "train.completed" / "valid").glob("*.json"))[0]
        adapter = json.loads(file.read_text())["adapter"] | {"model_id": MODEL}
        self.say("train.completed", dataset_id="ds-1", run_id="run-1", adapter=adapter)

    def move(self, stage: str, **told: Any) -> None:
        self.say("model.promoted", model_id=MODEL, from_stage="evaluated", to_stage=stage, **told)

    def status(self) -> TurnStatus:
        return fold(self.events)

    def in_flight(self, *, later: timedelta = timedelta(0)) -> list[TurnInFlight]:
        return self.status().in_flight(self.now + later)

    def told(self) -> dict[str, str]:
        return dict(report(self.status(), self.now))


def fold(events: list[Envelope[Any]]) -> TurnStatus:
    status = TurnStatus()
    for event in events:
        status.apply(event)
    return status


@pytest.fixture
def story() -> Story:
    return Story()


def test_an_alarm_shows_what_waits_and_what_a_person_does(story: Story) -> None:
    story.alarm()
    assert UNDECIDED in story.told()["alarm"]
    story.say("turn.decided", until="2026-11-26T13:00:00Z")
    told = story.told()
    assert told["alarm"] == (
        "alarm-1f: novelty, raised 2026-11-26 12:00 UTC (2 min ago): share of novel questions 0.48; "
        "suggests: collect labels; leads to: collect labels, has 3 of the 20 it needs"
    )
    assert told["decision"] == (
        "curate: waits for labels: alarm-1f (novelty): 3 of 20 labels near the cluster; the clock ends that "
        "at 2026-11-26 13:00 UTC; 37.50 of 50 dollars are left this month"
    )
    assert "tunewheel labels list" in told["to do"]
    story.say("drift.resolved", alarm_id="alarm-1f")
    assert story.told() == {}, "the decision was about an alarm that is over"


def test_an_alarm_whose_figures_have_left_the_log_is_still_open(story: Story) -> None:
    opened = {"signal": "novelty", "suggested_action": "collect_labels"}
    story.say("alarm.opened", alarm_id="alarm-1f", **opened)
    (line,) = report(story.status(), story.now)
    assert line.about == "alarm"
    assert "novelty" in line.text
    assert "collect labels" in line.text
    assert as_json(story.status(), story.now)["alarms"][0]["effect"] is None
    story.alarm()
    for events in (story.events, story.events[::-1]):
        (alarm,) = as_json(fold(events), story.now)["alarms"]
        assert alarm["effect"] == 0.48, "whichever of the two is read first"
    story.say("drift.resolved", alarm_id="alarm-1f")
    assert report(story.status(), story.now) == []


def test_an_alarm_about_documents_says_what_they_lack(story: Story) -> None:
    lacking = {"prompts": 90, "share": 0.2, "keywords": ["solar", "roof"]}
    story.alarm(signal="documents", suggested_action="update_documents", cluster=lacking)
    assert "suggests: publish documents about solar, roof" in story.told()["alarm"]
    story.alarm("alarm-2", signal="refusals", suggested_action="update_documents", cluster=None)
    assert "suggests: update documents" in story.told()["alarm"]


def test_the_latest_decision_holds_also_where_an_earlier_one_holds_again(story: Story) -> None:
    story.alarm()
    first = story.say("turn.decided")
    story.say("turn.decided", step="cools down")
    again = story.say("turn.decided")
    assert first.id == again.id
    assert "waits for labels" in story.told()["decision"]


def test_a_turn_is_followed_from_its_request_to_its_end(story: Story) -> None:
    def stage() -> str:
        (turn,) = story.in_flight()
        return turn.stage

    request = story.request(alarm_ids=("alarm-1f",))
    stages = [stage()]
    story.say("dataset.versioned", request, dataset_id="ds-1")
    stages.append(stage())
    story.say("train.started", dataset_id="ds-1", run_id="run-1")
    story.say("train.progressed", run_id="run-1", step=12, total_steps=62, eta_seconds=400)
    stages.append(stage())
    story.trained()
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
    told = story.told()
    assert "turn in flight" not in told
    assert "helped; novel questions fell" in told["last turn"]
    assert "before and after: novel 0.31 → 0.04; cost 0.5 gpu hours, 24 labels; took 3 h" in told["last turn"]
    assert told["to do"] == "Rate some answers."


@pytest.mark.parametrize(
    "end", ["dataset.rejected", "train.failed", "eval.failed", "eval.undecided", "moved"]
)
def test_a_turn_that_ended_is_in_flight_no_more_though_the_monitor_has_not_said_so(
    story: Story, end: str
) -> None:
    request = story.request()
    if end == "dataset.rejected":
        story.say(end, request)
    else:
        story.say("dataset.versioned", request, dataset_id="ds-1")
        story.trained()
        if end == "moved":
            story.say("model.rolledback", model_id=MODEL)
        else:
            story.say(end, dataset_id="ds-1")
    assert story.in_flight() == []


def test_a_request_that_a_later_one_was_answered_before_waits_for_nothing(story: Story) -> None:
    story.request("r-1")
    story.say("dataset.versioned", story.request("r-2"), dataset_id="ds-1")
    story.request("r-3")
    assert [turn.dataset_id for turn in story.in_flight()] == ["ds-1", None]


def test_a_turn_that_tells_nothing_for_a_week_is_waited_for_no_more(story: Story) -> None:
    story.say("dataset.versioned", story.request(), dataset_id="ds-1")
    nearly = STALE - timedelta(minutes=2)
    assert story.in_flight(later=nearly)
    assert not story.in_flight(later=STALE)
    story.say("train.started", dataset_id="ds-1", run_id="run-1")
    story.say("train.progressed", run_id="run-1", step=12, total_steps=62, eta_seconds=400)
    assert story.in_flight(later=nearly), "each step is news"
    assert not story.in_flight(later=STALE)
    file = EXAMPLES / "project.declared" / "valid" / "helpdesk.json"
    spec = json.loads(file.read_text())["spec"] | {
        "project": "desk",
        "rollout": {"canary": {"deadline_seconds": 864_000}},
    }
    story.say("project.declared", spec=spec)
    assert story.in_flight(later=timedelta(days=11, minutes=-5)), "a trial of ten days, and one more"
    assert not story.in_flight(later=timedelta(days=11))


@pytest.mark.parametrize(
    ("stage", "words"),
    [("evaluated", "waits for its rollout"), ("canary", "in canary"), ("production", "in production")],
)
def test_a_model_that_passed_keeps_its_stage_though_it_is_judged_again(
    story: Story, stage: str, words: str
) -> None:
    story.say("dataset.versioned", story.request(), dataset_id="ds-1")
    story.trained()
    story.move(stage)
    adapter = story.events[-2].data.adapter.model_dump(mode="json")
    for verdict in ("eval.passed", "eval.failed"):
        story.say(verdict, dataset_id="ds-1", adapter=adapter)
        (turn,) = story.in_flight()
        assert words in turn.stage


def test_a_model_whose_verdict_against_the_present_champion_is_undecided_ends_its_turn(story: Story) -> None:
    story.say("dataset.versioned", story.request(), dataset_id="ds-1")
    story.trained()
    story.move("evaluated")
    story.move("evaluated", held_up=True)
    assert not story.in_flight()


def test_the_latest_step_is_that_of_the_highest_generation(story: Story) -> None:
    story.say("dataset.versioned", story.request(), dataset_id="ds-1")
    story.trained()
    story.move("rejected", generation=6)
    story.move("canary", generation=5)
    assert not story.in_flight()


def test_an_alarm_without_a_name_is_over_once_a_version_is_asked_for(story: Story) -> None:
    story.say("drift.detected", alarm_id=None)
    assert [*story.status().open_alarms] == [story.events[0].id]
    story.request()
    assert not story.status().open_alarms, "nothing will resolve it"
    story.say("drift.detected", alarm_id=None, detector="format")
    assert [*story.status().open_alarms] == [story.events[-1].id]


def test_texts_of_users_are_not_kept(story: Story) -> None:
    example = {"completion_id": "c-1", "excerpt": "my own words", "score": 0.5}
    story.say("drift.detected", alarm_id="alarm-1f", examples=[example])
    assert "my own words" in repr(story.events)
    assert "my own words" not in repr(vars(story.status()))


def test_order_and_repetition_change_nothing(story: Story) -> None:
    story.alarm()
    request = story.request(alarm_ids=("alarm-1f",))
    for decision in ("waits for labels", "cools down"):
        story.say("turn.decided", step=decision)
    story.say("dataset.versioned", request, dataset_id="ds-1")
    story.say("train.started", dataset_id="ds-1", run_id="run-1")
    story.trained()
    story.move("canary")
    story.alarm("alarm-2")
    expected = as_json(story.status(), story.now)
    assert [one["alarm_id"] for one in expected["alarms"]] == ["alarm-1f", "alarm-2"]
    shuffled = random.Random(7)
    for _ in range(20):
        events = story.events * 2
        shuffled.shuffle(events)
        assert as_json(fold(events), story.now) == expected


def test_every_topic_that_is_read_is_used() -> None:
    for spec in TOPICS:
        story, status = Story(), TurnStatus()
        told = {"records_upto": {"0": 3}} if spec.name == "dataset.requested" else {}
        before = repr(vars(status))
        status.apply(story.say(spec.name, **told))
        assert repr(vars(status)) != before, spec.name

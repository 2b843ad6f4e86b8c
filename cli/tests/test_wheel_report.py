"""A project's place on the wheel follows from its events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tunewheel_cli.commands.tables import print_status
from tunewheel_cli.wheel_report import WheelReport, fold
from tunewheel_testing.story import Story, model_of


def placed(story: Story) -> str:
    return fold(story.events)[story.project].place


def test_the_last_event_that_moves_it_decides_in_whatever_order_topics_are_read() -> None:
    story, places = Story(), list[str]()
    story.say("project.declared")
    places.append(placed(story))
    story.say("dataset.requested", like="quiet", records_upto=None, awaits_index=True)
    places.append(placed(story))
    request = story.request()
    places.append(placed(story))
    story.version(request, "ds-1")
    places.append(placed(story))
    for what in ("started", "completed"):
        story.train(what, "ds-1")
        places.append(placed(story))
    assert places == [
        "collecting records",
        "waiting for the first index of its documents",
        "building a dataset",
        "waiting for training",
        "training",
        "evaluating",
    ]
    status = fold(reversed(story.events))[story.project]
    assert (status.place, status.counts["datasets"], status.counts["runs"]) == ("evaluating", 1, 1)
    assert status.last.startswith("train.completed ")


def of_model(stage: str, **told: Any) -> Story:
    """A turn whose model came to ``stage``."""
    story = Story()
    story.version(story.request(), "ds-1")
    story.train("completed", "ds-1")
    story.judge("eval.passed", "ds-1")
    told = {"model_id": model_of("ds-1"), "from_stage": "evaluated", "to_stage": stage} | told
    story.say("model.promoted", **told)
    return story


def test_a_promoted_model_serves_and_its_former_champion_does_not_count() -> None:
    story = of_model("production")
    story.say("model.promoted", model_id="p-0", from_stage="production", to_stage="retired")
    status = fold(story.events)[story.project]
    assert (status.place, status.counts["promoted"]) == ("serving", 1)


def test_a_retired_candidate_ends_in_the_status_with_the_reason() -> None:
    reason = "passed on the base B, but the engine serves that of the champion, A"
    for decided_by in ("rollout", "command", None):
        status = fold(of_model("retired", decided_by=decided_by, reason=reason).events)["desk"]
        assert (status.place, reason in status.last) == ("ended without a rollout, collecting records", True)


def test_a_rollback_counts_though_the_clock_of_its_registry_is_behind() -> None:
    story = of_model("canary", generation=5)
    story.now -= timedelta(minutes=30)
    story.say("model.rolledback", model_id=model_of("ds-1"), generation=6)
    assert placed(story) == "rolled back, collecting records"


def test_an_alarm_moves_no_project_and_its_decision_is_told_to_people_and_machines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    story = Story()
    story.version(story.request(), "ds-1")
    story.train("started", "ds-1")
    story.say("drift.detected", alarm_id="alarm-1f", signal="novelty")
    story.say("turn.decided")
    status = fold(story.events)["desk"]
    assert (status.place, status.counts["drifts"]) == ("training", 1)
    turns = status.as_json()["turns"]
    assert turns["alarms"][0]["answer"]["labels_needed"] == 20
    assert turns["decision"]["step"] == "waits for labels"
    print_status(None, WheelReport(projects={"p": status}))
    printed = " ".join(capsys.readouterr().out.split())
    assert "decision: curate: waits for labels" in printed
    assert "to do: Answer the questions that wait" in printed


def test_a_long_verdict_is_cut_in_the_table_and_whole_for_machines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reason = "missed " * 100
    projects = fold(of_model("retired", decided_by="rollout", reason=reason).events)
    assert reason.strip() in projects["desk"].last
    print_status(None, WheelReport(projects=projects))
    assert capsys.readouterr().out.count("missed") < 20

"""The console's state: what events add up to, in whatever order topics are read."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from tunewheel_console.control.projects import rest_of
from tunewheel_console.control.runs import run_summary
from tunewheel_console.run import LOSS_POINTS
from tunewheel_console.state import MOST_WAITS, ConsoleState
from tunewheel_contracts.api.runs import RunSummary
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.training import TrainAction
from tunewheel_contracts.topics import PROJECT_DECLARED, SERVING_DESIRED
from tunewheel_testing.specs import declared
from tunewheel_testing.story import Story


def told_of(state: Any) -> RunSummary:
    """Return what is said of the project's only run."""
    project = state.projects["desk"]
    (run,) = project.runs.values()
    return run_summary(project, run, {})


def test_a_turn_adds_up(state: Any, desk: Any):
    for event in desk.turn():
        state.apply(event)
    project = state.projects["desk"]
    run = told_of(state)
    assert (run.state, run.verdict, run.loss) == ("completed", "passed", 1.0)
    assert [one[:2] for one in project.runs["run-1"].curve()] == [(1, 2.0), (2, 1.0)]
    assert project.stages == {"desk-1": Stage.PRODUCTION}
    assert [drift.detector for _, drift in project.drifts] == ["input"]


def test_what_a_drift_of_an_earlier_release_quotes_is_neither_kept_nor_shown(state: Any, desk: Any):
    """An erasure could not find the excerpt: the event does not name the person who wrote it."""
    drifted = desk.drifted()
    assert "solar panel" in drifted.data.examples[0].excerpt
    state.apply(drifted)
    assert "solar panel" not in repr(state)


def test_a_run_that_trains_tells_every_figure_of_its_last_step(state: Any, desk: Any):
    state.apply(desk.started())
    assert (told_of(state).step, told_of(state).total_steps) == (0, 10)
    state.apply(desk.progressed(1, 2.0))
    assert (told_of(state).step, told_of(state).loss) == (1, 2.0)
    latest = state.projects["desk"].runs["run-1"].latest
    assert (latest.grad_norm, latest.tokens_per_second, latest.eta_seconds) == (0.5, 200.0, 9.0)


def test_a_run_that_is_trained_again_has_not_ended(state: Any, desk: Any):
    first, cancelled, again = desk.started(), desk.failed_training("was cancelled"), desk.started()
    assert first.id == again.id
    for event in (first, again, cancelled):  # each has a topic of its own, so their order is anybody's
        state.apply(event)
    assert told_of(state).state == "training"
    state.apply(desk.trained())
    assert told_of(state).state == "completed"


def test_a_dropped_run_says_what_superseded_it(state: Any, desk: Any):
    state.apply(desk.failed_training("was not begun", superseded_by="ds-2"))
    assert (told_of(state).state, told_of(state).why) == ("superseded", "superseded by ds-2")


def test_what_was_asked_of_a_run_last_counts(state: Any, desk: Any):
    pause, resume = desk.controlled(TrainAction.PAUSE), desk.controlled(TrainAction.RESUME)
    for event in (desk.started(), resume, pause):
        state.apply(event)
    assert told_of(state).state == "training"


def test_a_long_run_keeps_its_whole_curve_in_bounded_room(state: Any, desk: Any):
    steps = 3 * LOSS_POINTS
    for step in range(1, steps + 1):
        state.apply(desk.progressed(step, float(steps - step)))
    curve = state.projects["desk"].runs["run-1"].curve()
    assert LOSS_POINTS // 2 <= len(curve) <= LOSS_POINTS
    assert curve[-1][:2] == (steps, 0.0)
    assert curve[0][0] < 10
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(curve)]
    assert max(gaps) <= 2 * min(gaps[:-1])


def test_an_event_read_twice_changes_nothing(state: Any, desk: Any):
    events = desk.turn()
    for event in events:
        state.apply(event)
    version = state.projects["desk"].version
    for event in [e for e in events if e.data.type != "train.progressed"]:
        state.apply(event)
    assert state.projects["desk"].version == version
    assert len(state.projects["desk"].drifts) == 1


def test_traffic_is_no_change_and_is_not_remembered(state: Any, desk: Any):
    state.apply(desk.declared())
    version = state.projects["desk"].version
    for n in range(50):
        state.apply(desk.completion(n))
        state.apply(desk.rating(n))
    assert state.projects["desk"].version == version
    assert len(state.projects["desk"].ids) == 1  # a console runs for months


def test_a_review_waits_until_somebody_decides(state: Any, desk: Any):
    state.apply(desk.trained())
    state.apply(desk.review_requested())
    project = state.projects["desk"]
    assert [run.run_id for run in project.pending_reviews] == ["run-1"]
    state.apply(desk.reviewed())
    assert not project.pending_reviews
    state.apply(desk.passed())
    assert told_of(state).verdict == "passed"


@pytest.mark.parametrize("told_first", [True, False])
def test_a_refused_review_leaves_the_run_waiting_and_a_refused_pause_pauses_nothing(
    state: Any, desk: Any, told_first: bool
):
    """Whichever is read first, the event or its dead letter."""
    for event in (desk.started(), desk.review_requested(), desk.controlled(TrainAction.RESUME)):
        state.apply(event)
    for event in (desk.reviewed(), desk.controlled(TrainAction.PAUSE)):
        if told_first:
            state.refuse(event)
        state.apply(event)
        if not told_first:
            state.refuse(event)
    project = state.projects["desk"]
    assert [run.run_id for run in project.pending_reviews] == ["run-1"]
    assert not project.runs["run-1"].paused


def test_a_final_verdict_is_never_replaced_by_the_request_before_it(state: Any, desk: Any):
    request = desk.review_requested()
    state.apply(desk.failed())
    state.apply(request)
    assert (told_of(state).verdict, told_of(state).why) == ("failed", "rouge_l is too low")
    assert not state.projects["desk"].pending_reviews


def test_an_older_desired_state_does_not_replace_a_newer_one(state: Any, desk: Any):
    state.apply(desk.desired(generation=5))
    state.apply(desk.desired(generation=4))
    assert state.projects["desk"].desired.generation == 5


def test_a_tombstone_takes_a_projects_spec_and_routes_away(state: Any, desk: Any):
    for event in desk.turn():
        state.apply(event)
    project = state.projects["desk"]
    version = project.version
    assert project.spec is not None
    assert project.desired is not None
    state.forget(PROJECT_DECLARED, "desk")
    state.forget(SERVING_DESIRED, "desk")
    state.forget(PROJECT_DECLARED, "nobody")
    assert (project.spec, project.desired) == (None, None)
    assert "nobody" not in state.projects
    assert project.version > version


def test_a_copy_of_an_earlier_command_changes_nothing(state: Any, desk: Any):
    """Whoever may write to the topic can copy a command, with its signature and with another time."""
    pause, resume = desk.controlled(TrainAction.PAUSE), desk.controlled(TrainAction.RESUME)
    copy = replace(pause, time=resume.time + timedelta(hours=1))
    for event in (desk.started(), pause, resume, copy):
        state.apply(event)
    assert not state.projects["desk"].runs["run-1"].paused


def test_events_share_the_names_of_their_fields_and_stay_what_they_are(state: Any, make_desk: Any):
    events = [event for name in ("desk", "other") for event in make_desk(name).turn()]
    before = [(event.to_kafka(), event.data.model_dump(exclude_unset=True)) for event in events]
    for event in events:
        state.apply(event)
    assert [(event.to_kafka(), event.data.model_dump(exclude_unset=True)) for event in events] == before
    one, other = (next(e.data for e in state.projects[n].datasets.values()) for n in ("desk", "other"))
    assert one.model_fields_set is other.model_fields_set
    assert one.manifest.model_fields_set is other.manifest.model_fields_set
    names = {*one.model_fields_set}
    changed = one.model_copy(update={"awaits_index": True})
    assert (one.model_fields_set, changed.model_fields_set) == (names, names | {"awaits_index"})


def asked(project: str) -> Story:
    """A declared project whose request for a version has no answer."""
    story = Story(project)
    story.add(declared(project).data)
    story.request()
    return story


def test_waits_are_told_of_projects_in_memory_and_at_rest_but_not_of_those_that_are_over() -> None:
    state, desk, bell, over = ConsoleState(), asked("desk"), asked("bell"), asked("over")
    for event in (*desk.events, *bell.events, *over.events):
        state.apply(event)
    state.projects.resting["bell"] = rest_of(state.projects.pop("bell"))
    state.forget(PROJECT_DECLARED, "over")
    state.look(desk.events[-1].time + timedelta(hours=3))
    assert state.waits == {("desk", "building"): 10_800.0, ("bell", "building"): 10_800.0}


def test_what_hangs_is_told_beside_very_many_projects_that_ended_badly_long_ago() -> None:
    state = ConsoleState()
    for number in range(MOST_WAITS + 1):
        story = Story(f"old-{number}")
        story.now += timedelta(hours=number)
        story.say("project.declared")
        story.say("dataset.rejected", story.request(), held=None)
        for event in story.events:
            state.apply(event)
    desk = Story("desk", start=story.now)
    desk.say("project.declared")
    desk.request()
    for event in desk.events:
        state.apply(event)
    state.look(desk.now + timedelta(hours=3))
    assert len(state.waits) == MOST_WAITS
    told = {name for name, _ in state.waits}
    assert {"desk", f"old-{MOST_WAITS}"} <= told, "the latest end is told, too"
    assert {"old-0", "old-1"}.isdisjoint(told)


def test_of_very_many_projects_the_longest_waits_are_told() -> None:
    state = ConsoleState()
    for number in range(MOST_WAITS + 2):
        story = asked(f"desk-{number}")
        first = story.events[-1]
        state.apply(story.events[0])
        state.apply(replace(first, time=first.time - timedelta(hours=number)))
    state.look(first.time + timedelta(hours=1))
    assert len(state.waits) == MOST_WAITS
    assert {("desk-0", "building"), ("desk-1", "building")}.isdisjoint(state.waits)

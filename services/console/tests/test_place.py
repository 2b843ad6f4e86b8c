"""Where a project is on the wheel."""

from __future__ import annotations

from typing import Any

from tunewheel_console.place import Place
from tunewheel_console.state import ConsoleState
from tunewheel_contracts.events.data import RecordIngested, RecordKind
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.training import TrainAction


def place_after(events: list[Any]) -> Place:
    state = ConsoleState()
    for event in events:
        state.apply(event)
    place = state.projects["desk"].place
    assert place is not None
    return place


def steps_of(events: list[Any]) -> list[str]:
    return [place_after(events[: at + 1]).step.value for at in range(len(events))]


def record(desk: Any) -> Any:
    return desk.event(
        RecordIngested(
            project="desk",
            record_id="rec-1",
            kind=RecordKind.TICKET,
            source_id="t",
            source_event_id="e",
            input="i",
            group="g",
        )
    )


def test_a_turn_passes_every_step(desk: Any):
    passed = "ingest curate train train train train eval registry serve serve monitor"
    assert " ".join(steps_of(desk.turn())) == passed


def test_an_older_event_does_not_move_the_place(desk: Any):
    older, newer = desk.started(), desk.trained()
    assert steps_of([newer, older]) == ["eval", "eval"]


def test_a_verdict_that_comes_late_moves_no_model_that_the_registry_moved_on(desk: Any):
    events = [desk.trained(), desk.passed(), desk.promoted(Stage.CANARY), desk.failed()]
    assert (place_after(events).step.value, place_after(events).note) == ("serve", "canary: desk-1")


def test_a_refusal_shows_where_it_happened(desk: Any):
    place = place_after([desk.failed()])
    assert (place.step.value, place.tone, place.note) == ("eval", "refused", "rouge_l is too low")


def test_a_run_that_is_trained_again_is_in_training(desk: Any):
    failed = [desk.started(), desk.failed_training("was cancelled")]
    assert place_after(failed).tone == "refused"
    assert place_after([*failed, desk.started()]).tone == "working"
    paused = [*failed, desk.started(), desk.controlled(TrainAction.PAUSE)]
    assert (place_after(paused).note, place_after(paused).tone) == ("is paused", "waiting")


def test_records_do_not_pull_a_project_out_of_its_turn(desk: Any):
    assert steps_of([record(desk), desk.started(), record(desk)]) == ["ingest", "train", "train"]


def test_a_champion_that_a_person_retired_serves_no_more(desk: Any):
    place = place_after([desk.trained(), desk.promoted(), desk.promoted(Stage.RETIRED)])
    assert (place.step.value, place.tone) == ("serve", "refused")


def test_an_alarm_does_not_pull_a_project_out_of_its_turn(desk: Any):
    assert steps_of([desk.drifted(), desk.started(), desk.drifted()]) == ["monitor", "train", "train"]


def test_traffic_is_a_change_of_the_page_only_where_it_moves_the_project(desk: Any):
    state, versions = ConsoleState(), list[int]()
    for event in (record(desk), record(desk), desk.promoted(), record(desk), record(desk)):
        state.apply(event)
        versions.append(state.projects["desk"].version)
    assert versions == [1, 1, 2, 3, 3]

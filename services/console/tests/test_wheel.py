"""Where a project is on the wheel."""

from __future__ import annotations

from typing import Any

from tunewheel_console.wheel import place_after
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.data import RecordIngested, RecordKind
from tunewheel_contracts.events.lifecycle import Stage


def steps_of(events: list[Any]) -> list[str]:
    place, steps = None, []
    for event in events:
        place = place_after(place, event)
        steps.append(place.step.value if place else "")
    return steps


def test_a_turn_passes_every_step(desk: Any):
    passed = "ingest curate train train train train eval registry serve serve monitor"
    assert " ".join(steps_of(desk.turn())) == passed


def test_an_older_event_does_not_move_the_place(desk: Any):
    older, newer = desk.started(), desk.completed()
    assert steps_of([newer, older]) == ["eval", "eval"]


def test_a_refusal_shows_where_it_happened(desk: Any):
    place = place_after(None, desk.failed())
    assert place is not None
    assert (place.step.value, place.tone, place.note) == ("eval", "refused", "rouge_l is too low")


def test_a_dropped_version_does_not_take_the_project_from_the_newer_one(desk: Any):
    newer = desk.started()
    place = place_after(None, newer)
    assert place_after(place, desk.failed_training("was not begun", superseded_by="ds-2")) == place
    refused = place_after(place, desk.failed_training("was cancelled"))
    assert refused is not None
    assert refused.tone == "refused"


def test_records_do_not_pull_a_project_out_of_its_turn(desk: Any):
    def record() -> Any:
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

    assert steps_of([record(), desk.started(), record()]) == ["ingest", "train", "train"]


def test_a_retired_model_is_no_news_of_the_wheel(desk: Any):
    assert steps_of([desk.promoted(), desk.promoted(Stage.RETIRED)]) == ["serve", "serve"]
    assert place_after(None, new_event(desk.desired().data, source="/test")) is None


def test_an_alarm_does_not_pull_a_project_out_of_its_turn(desk: Any):
    assert steps_of([desk.drifted(), desk.started(), desk.drifted()]) == ["monitor", "train", "train"]

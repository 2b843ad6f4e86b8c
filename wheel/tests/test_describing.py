"""Every event is described in one line."""

from __future__ import annotations

import json

import pytest
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.training import TrainFailed, TrainPlanned, TrainProgressed
from tunewheel_contracts.formats.plan import ValidationPlan
from tunewheel_contracts.topics import BY_NAME, TOPICS, TopicSpec
from tunewheel_testing.story import EXAMPLES
from tunewheel_wheel.describing import describe


@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.name)
def test_every_event_is_told_in_one_line(spec: TopicSpec) -> None:
    files = sorted((EXAMPLES / spec.name / "valid").glob("*.json"))
    assert files, f"{spec.name} has no valid example"
    for file in files:
        event = spec.event.model_validate(json.loads(file.read_text("utf-8")))
        words = describe(new_event(event, source="/test"))
        assert words
        assert "\n" not in words
        assert words != event.ce_subject, "nothing is said but its subject"


def test_progress_tells_every_figure_that_a_step_has() -> None:
    step = TrainProgressed(
        project="desk", run_id="run-1", step=3, total_steps=9, epoch=0.5, loss=1.25, learning_rate=2e-3,
        tokens_per_second=210, eta_seconds=40,
    )  # fmt: skip
    words = describe(new_event(step, source="/test"))
    assert words == "run-1: step 3/9, loss 1.250, lr 0.002, 210 tok/s, 40 s left"
    figures = {"grad_norm": 0.75, "memory_bytes": 3 * 2**30, "validation_loss": 1.5}
    words = describe(new_event(step.model_copy(update=figures), source="/test"))
    assert words == (
        "run-1: step 3/9, loss 1.250, validation loss 1.500, lr 0.002, gradient 0.75, 210 tok/s, 3.0 GiB, "
        "40 s left"
    )
    more = {"gpu_memory_bytes": 5 * 2**30, "since_step_seconds": 61.0}
    words = describe(new_event(step.model_copy(update=more), source="/test"))
    assert "5.0 GiB on the GPU, in the next step for 61 s, 40 s left" in words


def test_a_dropped_run_names_the_version_that_superseded_it() -> None:
    event = TrainFailed(
        project="p", run_id="run-1", dataset_id="ds-1", field="(run)", reason="was not begun",
        superseded_by="ds-2",
    )  # fmt: skip
    assert describe(new_event(event, source="/t")) == "run-1: dropped, superseded by ds-2"


def test_a_plan_says_what_validating_takes() -> None:
    file = sorted((EXAMPLES / "train.planned" / "valid").glob("*.json"))[0]
    event = TrainPlanned.model_validate(json.loads(file.read_text("utf-8")))
    held = ValidationPlan(examples=95, every_steps=140, times=9, share=0.0436)
    plan = event.plan.model_copy(update={"validation": held})
    said = describe(new_event(event.model_copy(update={"plan": plan}), source="/t"))
    assert ", 95 examples validated every 140 steps (4.4% of training)" in said


@pytest.mark.parametrize("topic", ["turn.completed", "turn.completed.v2"])
def test_the_end_of_a_turn_is_told_with_its_reasons_and_the_next_step(topic: str) -> None:
    told = json.loads((EXAMPLES / topic / "valid" / "completed.json").read_text("utf-8"))
    event = BY_NAME[topic].event.model_validate(told | {"reasons": ["5 of 9"], "next_step": "Rate answers."})
    assert describe(new_event(event, source="/t")) == "turn-1: helped, 5 of 9. Rate answers."

"""What `tunewheel declare` says of a changed spec."""

from __future__ import annotations

from typing import Any

from tunewheel_cli.specs import untold_change
from tunewheel_contracts.formats.spec import ProjectSpec


def spec(*, temperature: float = 0.0, description: str = "", **task: Any) -> ProjectSpec:
    return ProjectSpec.model_validate(
        {
            "project": "desk",
            "description": description,
            "base_model": "m",
            "task": {"system_prompt": "Answer.", **task},
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
            "evaluation": {"decoding": {"temperature": temperature}},
        }
    )


def test_a_changed_prompt_is_said_to_wait_for_a_version() -> None:
    told = untold_change(spec(), spec(system_prompt="Answer briefly."))
    assert told is not None
    assert told.startswith("task.system_prompt changed: models that were judged serve as they were judged")
    both = untold_change(spec(), spec(temperature=0.5, max_output_tokens=9))
    assert both is not None
    assert both.startswith("task.max_output_tokens and evaluation.decoding changed: ")


def test_what_changes_no_answer_is_not_mentioned() -> None:
    assert untold_change(None, spec()) is None
    assert untold_change(spec(), spec(description="A desk.")) is None

"""What `tunewheel project declare` says of a changed spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunewheel_cli.specs import read_spec, untold_change
from tunewheel_contracts.errors import InvalidSpec
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


def test_a_spec_that_trains_with_passages_and_serves_without_is_refused(tmp_path: Path) -> None:
    trained = spec().model_dump(mode="json") | {"retrieval": {"default": "off", "training": {}}}
    path = tmp_path / "project.yaml"
    path.write_text(json.dumps(trained))
    with pytest.raises(InvalidSpec, match="would be judged and serve without them") as refused:
        read_spec(path)
    assert refused.value.field == "retrieval.training"
    path.write_text(json.dumps(trained | {"retrieval": {"training": {}}}))
    assert read_spec(path).trains_with_passages

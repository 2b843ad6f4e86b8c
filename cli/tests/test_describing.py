"""Every event has words of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunewheel_cli.describing import describe
from tunewheel_contracts.event import new_event
from tunewheel_contracts.topics import TOPICS, TopicSpec

EXAMPLES = Path(__file__).resolve().parents[2] / "contracts" / "examples"


@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.name)
def test_every_event_is_told_in_one_line(spec: TopicSpec) -> None:
    files = sorted((EXAMPLES / spec.name / "valid").glob("*.json"))
    assert files, f"{spec.name} has no valid example"
    for file in files:
        event = spec.event.model_validate(json.loads(file.read_text("utf-8")))
        words = describe(new_event(event, source="/test"))
        assert words
        assert "\n" not in words
        assert words != event.ce_subject, "it has no words of its own"

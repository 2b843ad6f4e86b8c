"""Project specs that tests declare."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec


def small_spec(project: str, **overrides: Any) -> ProjectSpec:
    """Return a valid spec for a classification task, with ``overrides`` of its top-level fields."""
    raw: dict[str, Any] = {
        "project": project,
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "task": {
            "system_prompt": "Answer as JSON.",
            "output_schema": {
                "type": "object",
                "properties": {"category": {"enum": ["bell", "horn"]}},
                "required": ["category"],
                "additionalProperties": False,
            },
            "label_field": "category",
            "max_output_tokens": 24,
        },
        "criteria": [{"metric": "valid_output", "minimum": 0.5}],
    }
    return ProjectSpec.model_validate(raw | overrides)


def declared(project: str, **overrides: Any) -> Envelope[ProjectDeclared]:
    """Return the event that declares ``small_spec(project)``."""
    return new_event(ProjectDeclared(project=project, spec=small_spec(project, **overrides)), source="/test")

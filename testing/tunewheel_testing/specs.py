"""Project specs that tests declare."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_testing.adapters import BASE


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
            "constrained": False,  # The fake engine answers what a test looks for, whatever the schema.
        },
        "criteria": [{"metric": "valid_output", "minimum": 0.5}],
    }
    return ProjectSpec.model_validate(raw | overrides)


def spec_of(project: str = "desk", *, prompt: str = "Answer as JSON.", **values: Any) -> ProjectSpec:
    """Return a spec of free text. ``values``: parts of the spec, as YAML has them; those of ``task`` beside
    its prompt."""
    return ProjectSpec.model_validate(
        {
            "project": project,
            "base_model": BASE.name,
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
            **values,
            "task": {"system_prompt": prompt, **values.get("task", {})},
        }
    )


def declared(project: str, **overrides: Any) -> Envelope[ProjectDeclared]:
    """Return the event that declares ``small_spec(project)``."""
    return new_event(ProjectDeclared(project=project, spec=small_spec(project, **overrides)), source="/test")

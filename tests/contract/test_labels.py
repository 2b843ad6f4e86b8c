"""A version's labels, as curate writes them, are the labels that the monitor reads in answers."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec
from tunewheel_curate.examples.output_validation import spelt_answers, validate_outputs
from tunewheel_curate.versions.suite import allowed_labels
from tunewheel_monitor.answers import Task

VALUES: dict[str, list[Any]] = {
    "boolean": [True, False],
    "number": [1, 1.0, 0.5, 3.0],
    "integer": [1, 2],
    "string": ["bell", "1"],
}


def task_of(kind: str, **field: Any) -> TaskSpec:
    schema = {"type": "object", "properties": {"escalate": {"type": kind} | field}}
    return TaskSpec.model_validate(
        {"system_prompt": "Answer.", "output_schema": schema, "label_field": "escalate"}
    )


@pytest.mark.parametrize("kind", VALUES)
def test_the_monitor_finds_each_label_of_a_version(kind: str) -> None:
    task, answers = task_of(kind), [json.dumps({"escalate": value}) for value in VALUES[kind]]
    records = pl.DataFrame({"record_id": [f"rec-{n}" for n, _ in enumerate(answers)], "output": answers})
    version = validate_outputs(records.with_columns(spelt_answers(records["output"], task)), task).kept
    labels = version["label"].to_list()
    assert len(labels) == len(answers)
    assert [Task.of(task).label(answer, frozenset(labels) - {None}) for answer in answers] == labels


@pytest.mark.parametrize("kind", VALUES)
def test_the_monitor_finds_each_label_that_the_schema_lists(kind: str) -> None:
    values = list(dict.fromkeys(VALUES[kind]))
    task = task_of(kind, enum=values)
    listed = allowed_labels(ProjectSpec.model_construct(task=task))
    found = [Task.of(task).label(json.dumps({"escalate": value}), frozenset()) for value in values]
    assert set(found) == {label for label in listed if label} > set()

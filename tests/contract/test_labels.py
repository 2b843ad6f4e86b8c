"""A version's labels, as curate writes them, are the labels that the monitor reads in answers."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_curate.examples.output_validation import spelt_answers, validate_outputs
from tunewheel_monitor.answers import Task
from tunewheel_outputs.labels import labels_in_schema

VALUES: dict[str, list[Any]] = {
    "boolean": [True, False],
    "number": [1, 1.0, 0.5, 3.0, -2.0, -0.5, 1e20, 10**20],
    "integer": [1, -7, 2**63, 10**30],
    "string": ["bell", "1", "true", "null", "1.0"],
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
    listed = labels_in_schema(task)
    found = [Task.of(task).label(json.dumps({"escalate": value}), frozenset()) for value in values]
    assert set(found) == set(listed) > set()


@pytest.mark.parametrize("answer", [None, "null"])
def test_null_is_no_label_though_the_schema_lists_it(answer: str | None) -> None:
    task = task_of("string", enum=["bell", None])
    assert labels_in_schema(task) == ["bell"]
    assert Task.of(task).label(json.dumps({"escalate": answer}), frozenset()) is None

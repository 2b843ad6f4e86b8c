"""Label Studio's formats: exported requests, and annotations that come back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from tunewheel_cli.label_studio import Annotation, InvalidAnnotation, annotations_in, config_of, task_of

FOLDER = Path(__file__).parents[2] / "var/label-studio"
CHECK = """
import json, sys
from label_studio_sdk.label_interface import LabelInterface
told = json.load(sys.stdin)
interface = LabelInterface(told["config"])
interface.validate()
for task in told["tasks"]:
    assert interface.validate_task({"data": task["data"]}), task
    for prediction in task["predictions"]:
        assert interface.validate_prediction(prediction), prediction
    for annotation in task["annotations"]:
        assert interface.validate_annotation(annotation), annotation
"""


def field(name: str, kind: str, choices: tuple[Any, ...] = (), *, required: bool = True) -> Any:
    return SimpleNamespace(name=name, kind=kind, choices=choices, required=required)


LABELS = (
    field("category", "choice", ('"bell" & <horn>', "lamp", 3)),
    field("urgent", "yes_no"),
    field("days", "number", required=False),
    field("reply", "text", required=False),
)
FREE = (field("", "text"),)
JSON = (field("", "json"),)
OUTPUT = {"category": "lamp", "urgent": False, "days": 2, "reply": "Dear A"}


def item(output: str | None, number: int = 1) -> Any:
    message = SimpleNamespace(role="user", content="My lamp hums.")
    return SimpleNamespace(number=number, completion_id="c-1", messages=(message,), model_output=output)


def annotated(task: dict[str, Any], result: Any = None, **more: Any) -> dict[str, Any]:
    """Return the task as Label Studio exports it, with ``result``, or its prediction taken over."""
    result = task["predictions"][0]["result"] if result is None else result
    by = {"completed_by": {"id": 7, "email": "ann@example.org"}, "was_cancelled": False, "result": result}
    return task | {"id": 41, "annotations": [by | more]}


@pytest.mark.parametrize(
    ("fields", "output"),
    [(LABELS, OUTPUT), (LABELS[:1], {"category": 3}), (FREE, "Dear A"), (JSON, {"a": [1]})],
)
def test_what_an_annotator_takes_over_comes_back_as_the_same_answer(fields: Any, output: Any) -> None:
    said = output if isinstance(output, str) else json.dumps(output)
    tasks = json.loads(json.dumps([annotated(task_of("labels-1", item(said, 4), fields))]))
    assert annotations_in(tasks, lambda _: fields) == [Annotation("labels-1", 4, "ann@example.org", output)]


@pytest.fixture(scope="module")
def label_studio() -> Path:
    """A Python with Label Studio's SDK, which is too large for the project's own environment."""
    python = FOLDER / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "label-studio-sdk"], check=True)
    return python


@pytest.mark.nightly("matrices")
@pytest.mark.parametrize(("fields", "output"), [(LABELS, json.dumps(OUTPUT)), (FREE, "Dear A")])
def test_label_studio_itself_takes_config_tasks_and_predictions(
    label_studio: Path, fields: Any, output: str
) -> None:
    told = {"config": config_of(fields), "tasks": [annotated(task_of("labels-1", item(output), fields))]}
    run = subprocess.run(
        [label_studio, "-c", CHECK], input=json.dumps(told), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_the_config_has_a_control_for_each_field_and_one_for_out_of_scope() -> None:
    view = ElementTree.fromstring(config_of(LABELS))
    controls = [(one.tag, one.get("name")) for one in view if one.get("toName") == "conversation"]
    assert controls == [
        ("Choices", "category"), ("Choices", "urgent"), ("Number", "days"), ("TextArea", "reply"),
        ("Choices", "out of scope"),
    ]  # fmt: skip
    assert [one.get("value") for one in view.find("Choices") or ()] == ['"bell" & <horn>', "lamp", "3"]


@pytest.mark.parametrize("output", [None, "no JSON", '{"category": "drum"}', "[]"])
def test_an_answer_that_does_not_fit_the_form_is_no_prediction(output: str | None) -> None:
    assert "predictions" not in task_of("labels-1", item(output), LABELS[:1])


def test_out_of_scope_holds_whatever_else_was_said() -> None:
    task = task_of("labels-1", item(json.dumps(OUTPUT)), LABELS)
    outside = {
        "from_name": "out of scope", "to_name": "conversation", "type": "choices",
        "value": {"choices": ["out of scope"]},
    }  # fmt: skip
    told = annotated(task, [*task["predictions"][0]["result"], outside], completed_by=7)
    (found,) = annotations_in([told], lambda _: LABELS)
    assert (found.output, found.annotator) == (None, "label-studio-7")


def test_skipped_and_empty_annotations_and_tasks_without_any_give_no_answer() -> None:
    task = task_of("labels-1", item(json.dumps(OUTPUT)), LABELS)
    tasks = [annotated(task, was_cancelled=True), annotated(task, []), task | {"annotations": []}]
    assert annotations_in(tasks, lambda _: LABELS) == []


WRONG = [{"from_name": "category", "value": {"choices": ["drum"]}}]
BROKEN = [{"from_name": "answer", "value": {"text": ["{"]}}]


@pytest.mark.parametrize(
    ("tasks", "fields"),
    [
        ({}, LABELS),
        ([{"category": "lamp"}], LABELS),
        ([{"data": {"text": "x"}, "annotations": [{"result": WRONG}]}], LABELS),
        ([annotated(task_of("r", item(None), LABELS), WRONG)], LABELS),
        ([annotated(task_of("r", item(None), JSON), BROKEN)], JSON),
    ],
)
def test_what_is_no_export_is_refused_with_its_place(tasks: Any, fields: Any) -> None:
    with pytest.raises(InvalidAnnotation, match=r"^(\[0\]|the file)"):
        annotations_in(tasks, lambda _: fields)

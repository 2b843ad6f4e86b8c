from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from tunewheel_contracts.compatibility import compare
from tunewheel_contracts.generation.schemas import all_schemas

PRODUCED = "train.progressed"
"""An open object: services write it."""
WRITTEN = "ticket.published"
"""A closed object: people write it."""


def _changed(name: str, change: Callable[[dict[str, Any]], object]) -> list[str]:
    """Return the violations after ``change`` was done to one schema, as text."""
    new = all_schemas() | {name: copy.deepcopy(all_schemas()[name])}
    change(new[name])
    assert new[name] != all_schemas()[name], "the change changed nothing"
    return [str(violation) for violation in compare(all_schemas(), new)]


def test_there_is_something_to_compare_and_it_equals_itself() -> None:
    assert len(all_schemas()) >= 32
    assert compare(all_schemas(), copy.deepcopy(all_schemas())) == []


# what passes


@pytest.mark.parametrize("name", [PRODUCED, WRITTEN])
def test_a_new_optional_field_passes(name: str) -> None:
    assert _changed(name, lambda s: s["properties"].update(note={"type": "string"})) == []


def test_a_new_optional_field_deep_inside_passes_with_the_default_that_holds_it() -> None:
    def change(schema: dict[str, Any]) -> None:
        schema["$defs"]["DatasetSpec"]["properties"]["note"] = {"type": "string", "default": "x"}
        schema["properties"]["dataset"]["default"]["note"] = "x"

    assert _changed("project-spec", change) == []


@pytest.mark.parametrize(
    ("name", "holder"),
    [
        ("eval.passed", "Criterion"),
        ("model.promoted", "Decoding"),
        ("serving.desired", "Decoding"),
        ("scorecard", "Criterion"),
        ("dataset-manifest", "Criterion"),  # a copy of what people wrote
    ],
)
def test_a_new_optional_field_passes_in_closed_objects_because_readers_leave_it_out(name, holder) -> None:
    def change(schema: dict[str, Any]) -> None:
        schema["$defs"][holder]["properties"]["margin"] = {"type": "number", "default": 0}

    assert _changed(name, change) == []


def test_a_strictly_read_artifact_may_gain_no_field_in_a_closed_object_that_services_write() -> None:
    closed = {"type": "object", "additionalProperties": False, "properties": {}}
    old = {"dataset-manifest": {"type": "object", "properties": {"use": closed}}}
    new = copy.deepcopy(old)
    new["dataset-manifest"]["properties"]["use"]["properties"]["note"] = {"type": "string"}
    assert [v.path for v in compare(old, new)] == ["dataset-manifest.use.note"]
    assert compare({"run-manifest": old["dataset-manifest"]}, {"run-manifest": new["dataset-manifest"]}) == []


@pytest.mark.parametrize("name", ["project-spec", "project.declared", "dataset-manifest"])
def test_choices_of_people_may_grow_where_their_spec_is_copied(name: str) -> None:
    assert _changed(name, lambda s: s["$defs"]["TrainMethod"]["enum"].append("dora")) == []


def test_a_new_schema_passes() -> None:
    assert compare(all_schemas(), {**all_schemas(), "ticket.closed": {"type": "object"}}) == []


def test_documentation_passes() -> None:
    assert _changed(PRODUCED, lambda s: s["properties"]["loss"].update(description="Lower is better.")) == []


def test_an_unused_definition_may_go() -> None:
    new = copy.deepcopy(all_schemas())
    new[PRODUCED]["$defs"] = {"Orphan": {"type": "string"}}
    assert compare(new, all_schemas()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["properties"]["body"].update(maxLength=2_000_000),
        lambda s: s["properties"]["body"].pop("minLength"),
        lambda s: s["required"].remove("body"),
    ],
    ids=["upper bound", "lower bound", "requirement"],
)
def test_events_that_people_write_may_accept_wider_values(change: Callable[[dict[str, Any]], object]) -> None:
    assert _changed(WRITTEN, change) == []


def test_a_required_field_may_become_optional_with_a_default_where_people_write() -> None:
    def change(schema: dict[str, Any]) -> None:
        schema["required"].remove("body")
        schema["properties"]["body"]["default"] = ""

    assert _changed(WRITTEN, change) == []


def test_a_field_may_join_the_identity_of_events_that_give_it() -> None:
    joining = {"identity_when_given": ["channel"]}
    assert _changed(PRODUCED, lambda s: s["x-topic"].update(joining)) == []


# what does not


def test_a_removed_field_is_caught() -> None:
    assert _changed(PRODUCED, lambda s: s["properties"].pop("grad_norm")) == [
        "train.progressed.grad_norm: field removed"
    ]


def test_a_new_required_field_is_caught() -> None:
    def change(schema: dict[str, Any]) -> None:
        schema["properties"]["gpu"] = {"type": "string"}
        schema["required"].append("gpu")

    assert _changed(PRODUCED, change) == [
        "train.progressed.gpu: new field is required; make it optional"
    ]  # fmt: skip


def test_a_deleted_schema_is_caught() -> None:
    new = {name: schema for name, schema in all_schemas().items() if name != "scorecard"}
    assert [v.path for v in compare(all_schemas(), new)] == ["scorecard"]


def _property(name: str, **changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda schema: schema["properties"][name].update(changes)


INCOMPATIBLE: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "optional becomes required": (WRITTEN, lambda s: s["required"].append("subject"), "became required"),
    "required becomes optional": (PRODUCED, lambda s: s["required"].remove("loss"), "became optional"),
    "type narrowed": (PRODUCED, _property("loss", type="integer"), "type changed"),
    "type changed": (WRITTEN, _property("body", type="number"), "type changed"),
    "null no longer accepted": (
        PRODUCED,
        lambda s: s["properties"].update(grad_norm={"type": "number", "default": None}),
        "type changed from union to number",
    ),
    "branch of a union removed": (
        WRITTEN,
        lambda s: s["properties"]["answer"]["anyOf"].pop(0),
        "type narrowed: object",
    ),
    "branch of a union added": (
        PRODUCED,
        lambda s: s["properties"]["grad_norm"]["anyOf"].append({"type": "string"}),
        "type widened: string",
    ),
    "item type changed": (
        "rollout.judged",
        lambda s: s["properties"]["reasons"]["items"].update(type="integer"),
        "type changed",
    ),
    "map value type changed": (
        "rollout.judged",
        lambda s: s["properties"]["candidate"]["additionalProperties"].update(type="string"),
        "type changed",
    ),
    "enum narrowed": (
        "train.control",
        lambda s: s["$defs"]["TrainAction"]["enum"].remove("cancel"),
        "values narrowed",
    ),
    "enum narrowed where people write": (
        "feedback.received",
        lambda s: s["properties"]["rating"]["enum"].remove("up"),
        "values narrowed",
    ),
    "enum widened where services write": (
        "model.promoted",
        lambda s: s["properties"]["to_stage"]["enum"].append("undecided"),
        "values widened",
    ),
    "values restricted": (PRODUCED, _property("loss", enum=[1, 2]), "values narrowed"),
    "upper bound narrowed": (WRITTEN, _property("body", maxLength=10), "maxLength changed"),
    "lower bound narrowed": (WRITTEN, _property("body", minLength=10), "minLength changed"),
    "bound added": (PRODUCED, _property("loss", maximum=9), "maximum changed"),
    "bound loosened where services write": (
        PRODUCED,
        lambda s: s["properties"]["step"].pop("minimum"),
        "minimum changed",
    ),
    "pattern changed": (WRITTEN, _property("project", pattern="^x$"), "pattern changed"),
    "format removed": (
        "inference.completed",
        lambda s: s["properties"]["completed_at"].pop("format"),
        "format changed",
    ),
    "default changed": ("train.started", _property("resumed_from_step", default=1), "default changed"),
    "default beside a reference changed": (
        "dataset.versioned",
        lambda s: s["properties"]["reason"].update(default="count"),
        "default changed",
    ),
    "open object closed": (
        PRODUCED,
        lambda s: s.update(additionalProperties=False),
        "additionalProperties changed",
    ),
    "removed field deep inside": (
        "eval.passed",
        lambda s: s["$defs"]["ArtifactRef"]["properties"].pop("sha256"),
        "field removed",
    ),
    "key changed": (PRODUCED, lambda s: s["x-topic"].update(key="run_id"), "x-topic changed"),
    "a field that had joined the identity left it": (
        WRITTEN,
        lambda s: s["x-topic"].pop("identity_when_given"),
        "x-topic changed",
    ),
    "default added to an optional field where services write": (
        PRODUCED,
        lambda s: s["properties"]["loss"].update(default=1.0),
        "default changed",
    ),
    "partitions changed": (PRODUCED, lambda s: s["x-topic"].update(partitions=9), "x-topic changed"),
    "identity changed": ("train.control", lambda s: s["x-topic"].update(identity=[]), "x-topic changed"),
    "bound loosened in a closed object that services write": (
        "serving.desired",
        lambda s: s["$defs"]["Decoding"]["properties"]["temperature"].update(maximum=4),
        "maximum changed",
    ),
    "required field of a closed object that services write becomes optional": (
        "eval.passed",
        lambda s: s["$defs"]["Criterion"].pop("required"),
        "became optional",
    ),
    "closed object of a scorecard widened": (
        "scorecard",
        lambda s: s["$defs"]["Criterion"]["properties"]["significance"]["anyOf"].append({"type": "string"}),
        "type widened",
    ),
    "enum widened in an upstream event that the gateway publishes": (
        "feedback.received",
        lambda s: s["properties"]["rating"]["enum"].append("star"),
        "values widened",
    ),
    "a keyword nobody thought of": (PRODUCED, _property("loss", multipleOf=2), "multipleOf changed"),
}


@pytest.mark.parametrize("case", INCOMPATIBLE)
def test_anything_else_is_caught(case: str) -> None:
    name, change, reason = INCOMPATIBLE[case]
    violations = _changed(name, change)
    assert violations
    assert all(violation.startswith(name) for violation in violations)
    assert any(reason in violation for violation in violations), violations

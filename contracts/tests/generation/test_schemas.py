from __future__ import annotations

import json

import jsonschema
from tunewheel_contracts.formats.catalog import FORMATS
from tunewheel_contracts.generate import repository_root
from tunewheel_contracts.generation.schemas import FOLDER, all_schemas, schema_files
from tunewheel_contracts.topics import BY_NAME, TOPICS

COMMITTED = repository_root() / FOLDER


def test_every_schema_is_of_a_topic_or_format_and_every_one_of_those_has_one() -> None:
    names = {path.stem for path in COMMITTED.glob("*.json")}
    assert names == set(BY_NAME) | set(FORMATS)
    assert len(TOPICS) >= 25
    assert len(FORMATS) >= 7


def test_every_schema_is_a_schema() -> None:
    assert len(all_schemas()) == len(TOPICS) + len(FORMATS)
    for schema in all_schemas().values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_schema_says_what_it_is() -> None:
    undescribed = [name for name, schema in all_schemas().items() if not schema.get("description")]
    assert not undescribed


def test_field_docstrings_become_descriptions() -> None:
    schema = all_schemas()["model.promoted"]
    assert "decided the step" in schema["properties"]["cause"]["description"]


def test_a_topic_schema_carries_what_order_and_ids_rest_on() -> None:
    assert all_schemas()["rollout.judged"]["x-topic"] == {
        "key": "project",
        "subject": "model_id",
        "identity": ["stage", "generation"],
        "partitions": 1,
        "cleanup": "delete",
    }


def test_files_end_in_one_newline_and_are_the_schemas() -> None:
    files = schema_files()
    assert all(text.endswith("}\n") for text in files.values())
    assert json.loads(files[f"{FOLDER}/scorecard.json"]) == all_schemas()["scorecard"]

"""Every example is what it says: valid ones travel and fit the schema, invalid ones name the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tunewheel_contracts.errors import InvalidEvent, InvalidSpec
from tunewheel_contracts.event import Envelope, Event, decode_data, new_event
from tunewheel_contracts.formats.catalog import FORMATS
from tunewheel_contracts.formats.spec import ProjectSpec, parse_spec
from tunewheel_contracts.generation.schemas import all_schemas
from tunewheel_contracts.reading import at_door
from tunewheel_contracts.topics import BY_NAME

EXAMPLES = Path(__file__).parents[1] / "examples"
MODELS = {name: spec.event for name, spec in BY_NAME.items()} | FORMATS
VALID = sorted(EXAMPLES.glob("*/valid/*.json"))
INVALID = sorted(EXAMPLES.glob("*/invalid/*.json"))


def _name(path: Path) -> str:
    return f"{path.parts[-3]}/{path.stem}"


def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        all_schemas()[name], format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )


def test_no_example_is_an_orphan_and_none_is_missing() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == set(MODELS)
    assert {path.parts[-3] for path in VALID} == set(MODELS)
    assert {path.parts[-3] for path in INVALID} == set(MODELS)
    strays = {p for p in EXAMPLES.rglob("*") if p.is_file()} - {*VALID, *INVALID}
    assert not strays


def test_there_are_examples_enough() -> None:
    assert len(MODELS) >= 32
    assert len(VALID) >= 45
    assert len(INVALID) >= 100


@pytest.mark.parametrize("path", VALID, ids=_name)
def test_a_valid_example_fits_model_and_schema(path: Path) -> None:
    raw = path.read_bytes()
    name = path.parts[-3]
    decoded = decode_data(MODELS[name], raw)
    validator = _validator(name)
    validator.validate(json.loads(raw))
    validator.validate(decoded.model_dump(mode="json"))
    assert decode_data(MODELS[name], decoded.model_dump_json().encode()) == decoded


@pytest.mark.parametrize("path", [path for path in VALID if path.parts[-3] in BY_NAME], ids=_name)
def test_a_valid_event_round_trips_through_kafka(path: Path) -> None:
    event_class: type[Event] = BY_NAME[path.parts[-3]].event
    envelope = new_event(decode_data(event_class, path.read_bytes()), source="tests")
    record = envelope.to_kafka()
    again = Envelope.from_kafka(event_class, record.value, record.headers)
    assert again == envelope
    assert again.data.event_id() == envelope.id
    assert record.topic == path.parts[-3]


@pytest.mark.parametrize("path", INVALID, ids=_name)
def test_an_invalid_example_names_the_field(path: Path) -> None:
    body = json.loads(path.read_text(encoding="utf-8"))
    name, text = path.parts[-3], json.dumps(body["data"])
    with pytest.raises((InvalidEvent, InvalidSpec)) as caught:
        _parse(name, text)
    assert caught.value.field == body["field"]
    assert caught.value.reason


def _parse(name: str, text: str) -> Any:
    if MODELS[name] is ProjectSpec:
        return parse_spec(text)
    return decode_data(MODELS[name], text.encode(), at_door())

"""Names that earlier versions derived from specs, recipes and events are what this version derives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.topics import BY_NAME

from .names import names_of_event, names_of_spec

FOLDER = Path(__file__).parent
CORPORA = {path.parent.name: json.loads(path.read_text("utf-8")) for path in FOLDER.glob("*/names.json")}
SPECS = [(name, entry) for name, corpus in CORPORA.items() for entry in corpus["specs"]]
EVENTS = [(name, entry) for name, corpus in CORPORA.items() for entry in corpus["events"]]


def _id(value: Any) -> str:
    return value.get("type") or value["spec"]["project"] if isinstance(value, dict) else value


def test_the_corpus_is_no_handful() -> None:
    assert len(SPECS) >= 8
    assert len(EVENTS) >= 40


@pytest.mark.parametrize(("recorded", "entry"), SPECS, ids=_id)
def test_a_spec_keeps_its_names(recorded: str, entry: dict[str, Any]) -> None:
    assert names_of_spec(entry["spec"]) == entry["names"]


@pytest.mark.parametrize(("recorded", "entry"), EVENTS, ids=_id)
def test_an_event_keeps_its_names(recorded: str, entry: dict[str, Any]) -> None:
    if entry["type"] in BY_NAME:
        assert names_of_event(entry["type"], entry["data"]) == entry["names"]

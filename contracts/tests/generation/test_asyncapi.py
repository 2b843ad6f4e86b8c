from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import pytest
import yaml
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_contracts.generate import repository_root
from tunewheel_contracts.generation.asyncapi import FOLDER, SERVICES, asyncapi_files, document
from tunewheel_contracts.topics import TOPICS

NAMES = ("tunewheel", *SERVICES)


_files = cache(asyncapi_files)


@cache
def _load(name: str) -> dict[str, Any]:
    return yaml.safe_load(_files()[f"{FOLDER}/{name}.yaml"])


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


@pytest.mark.parametrize("name", NAMES)
def test_every_reference_leads_somewhere(name: str) -> None:
    body, folder = _load(name), repository_root() / FOLDER
    references = list(_references(body))
    assert len(references) >= 4
    for reference in references:
        if not reference.startswith("#/"):
            assert (folder / reference).is_file(), reference
            continue
        target: Any = body
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


@pytest.mark.parametrize("name", NAMES)
def test_the_document_has_the_shape_of_asyncapi_3(name: str) -> None:
    body = _load(name)
    assert body["asyncapi"] == "3.0.0"
    assert body["info"]["title"]
    for operation in body["operations"].values():
        assert operation["action"] in {"send", "receive"}
        assert operation["channel"]["$ref"].removeprefix("#/channels/") in body["channels"]
    for address, channel in body["channels"].items():
        assert channel["address"] == address
        assert channel["bindings"]["kafka"]["bindingVersion"] == "0.5.0"


def test_the_whole_names_every_topic_with_its_consumers_groups() -> None:
    body = _load("tunewheel")
    assert {spec.name for spec in TOPICS} <= set(body["channels"])
    operation = body["operations"]["train.receive.dataset-versioned"]
    assert operation["bindings"]["kafka"]["groupId"]["enum"] == ["train.dataset-versioned"]
    assert "train.send.dataset-versioned-dlq" in body["operations"]


def test_a_replayed_topic_has_no_group_and_gets_no_dead_letter_from_who_replays_it() -> None:
    operations = document(("curate",), title="curate")["operations"]
    assert "bindings" not in operations["curate.receive.project-declared"]
    assert "curate.send.project-declared-dlq" not in operations


def test_a_topic_names_the_group_that_chooses_the_active_process() -> None:
    operation = document(("registry",), title="registry")["operations"]["registry.receive.project-declared"]
    groups = operation["bindings"]["kafka"]["groupId"]["enum"]
    assert groups == ["registry.project-declared", "registry.active"]


def test_the_console_reads_what_is_published_as_the_records_that_ingest_makes_of_it() -> None:
    operations = document(("console",), title="console")["operations"]
    read = {name.removeprefix("console.receive.") for name in operations if ".receive." in name}
    assert {"record-ingested", "train-progressed"} <= read
    assert not {"ticket-published", "document-published", "example-published", "inference-scored"} & read


def test_a_service_sees_only_its_own_channels() -> None:
    channels = set(_load("ingest")["channels"])
    assert "record.ingested" in channels
    assert "serving.desired" not in channels


def test_the_headers_we_send_fit_the_headers_we_document() -> None:
    data = TrainControl(project="p", run_id="run-1", action=TrainAction.PAUSE, request="1")
    headers = {name: raw.decode() for name, raw in new_event(data, source="cli").to_kafka().headers.items()}
    schema = _load("console")["components"]["messages"]["TrainControl"]["headers"]
    jsonschema.validate(headers, schema)
    assert set(headers) <= set(schema["properties"])

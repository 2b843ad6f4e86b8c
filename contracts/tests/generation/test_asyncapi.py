from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_contracts.generate import repository_root
from tunewheel_contracts.generation.asyncapi import FILE, SERVICES, asyncapi_files
from tunewheel_contracts.topics import TOPICS


@functools.cache
def body() -> dict[str, Any]:
    return yaml.safe_load(asyncapi_files()[FILE])


def operations() -> dict[str, Any]:
    return body()["operations"]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def test_every_reference_leads_somewhere() -> None:
    folder = (repository_root() / FILE).parent
    references = list(_references(body()))
    assert len(references) >= 200
    for reference in references:
        if not reference.startswith("#/"):
            assert (folder / reference).is_file(), reference
            continue
        target: Any = body()
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def test_the_document_has_the_shape_of_asyncapi_3() -> None:
    assert body()["asyncapi"] == "3.0.0"
    assert body()["info"]["title"]
    for operation in operations().values():
        assert operation["action"] in {"send", "receive"}
        assert operation["channel"]["$ref"].removeprefix("#/channels/") in body()["channels"]
    for address, channel in body()["channels"].items():
        assert channel["address"] == address
    for spec in TOPICS:
        assert body()["channels"][spec.name]["bindings"]["kafka"]["bindingVersion"] == "0.5.0"


def test_each_payload_is_a_reference_to_the_schema_of_its_topic() -> None:
    messages = body()["components"]["messages"]
    payloads = {message["name"]: message["payload"] for message in messages.values()}
    assert payloads.pop("DeadLetter").keys() == {"description"}
    assert payloads.keys() == {spec.name for spec in TOPICS}
    for topic, payload in payloads.items():
        assert payload["schema"] == {"$ref": f"schemas/{topic}.json"}


def test_the_document_names_every_topic_with_its_consumers_groups() -> None:
    assert {spec.name for spec in TOPICS} <= set(body()["channels"])
    operation = operations()["train.receive.dataset-versioned"]
    assert operation["bindings"]["kafka"]["groupId"]["enum"] == ["train.dataset-versioned"]
    assert "train.send.dataset-versioned-dlq" in operations()


def test_each_operation_names_its_service() -> None:
    services = {name.split(".")[0] for name in operations()}
    assert services == set(SERVICES)


def test_a_replayed_topic_has_no_group_and_gets_no_dead_letter_from_who_replays_it() -> None:
    assert "bindings" not in operations()["curate.receive.project-declared"]
    assert "curate.send.project-declared-dlq" not in operations()


def test_a_topic_names_the_group_that_chooses_the_active_process() -> None:
    groups = operations()["registry.receive.project-declared"]["bindings"]["kafka"]["groupId"]["enum"]
    assert groups == ["registry.project-declared", "registry.active"]


def test_the_console_reads_what_is_published_as_the_records_that_ingest_makes_of_it() -> None:
    read = {name.removeprefix("console.receive.") for name in operations() if "console.receive." in name}
    assert {"record-ingested", "train-progressed"} <= read
    assert not {"ticket-published", "document-published", "example-published", "inference-scored"} & read


def test_the_headers_we_send_fit_the_headers_we_document() -> None:
    data = TrainControl(project="p", run_id="run-1", action=TrainAction.PAUSE, request="1")
    headers = {name: raw.decode() for name, raw in new_event(data, source="cli").to_kafka().headers.items()}
    components = body()["components"]
    every, own = (
        components["messageTraits"]["CloudEvent"]["headers"],
        components["messages"]["TrainControl"]["headers"],
    )
    for schema in (every, own):
        jsonschema.validate(headers, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(headers | {"ce_type": "train.started"}, own)
    assert set(own["properties"]) <= set(every["properties"]) >= set(headers)

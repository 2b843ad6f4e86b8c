"""Each schema lies where its ``$id`` leads, for whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urljoin

import httpx
import pytest
import yaml
from tunewheel_contracts.generation.schemas import all_schemas
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.served import served

from .conftest import Log, make_app


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    file = tmp_path_factory.mktemp("door") / "keys.yaml"
    file.write_text(f"keys: {{shop: {{sha256: {content_sha256(b'k')}, roles: [publisher]}}}}")
    settings = HttpSettings(identity="required", api_keys_file=file)
    with (
        served(make_app(Log(), ObjectStore("memory://"), settings)) as url,
        httpx.Client(base_url=url) as client,
    ):
        yield client


def test_every_schema_is_at_its_id_without_a_key(door: httpx.Client) -> None:
    for name, schema in all_schemas().items():
        answer = door.get(f"/v1/schemas/{name}.json")
        assert answer.headers["content-type"] == "application/schema+json"
        assert answer.json() == schema
        assert urljoin(str(answer.url), answer.json()["$id"]) == str(answer.url)


def test_the_references_of_the_asyncapi_document_lead_to_schemas(door: httpx.Client) -> None:
    answer = door.get("/v1/asyncapi.yaml")
    messages = yaml.safe_load(answer.text)["components"]["messages"]
    found = [one["payload"]["schema"]["$ref"] for one in messages.values() if "schema" in one["payload"]]
    assert len(found) > 40
    assert {door.get(urljoin(str(answer.url), place)).status_code for place in found} == {200}


def test_an_unknown_schema_is_not_found(door: httpx.Client) -> None:
    assert door.get("/v1/schemas/ticket.opened.json").status_code == 404
    assert door.get("/v1/schemas/..%2Fasyncapi.yaml").status_code == 404

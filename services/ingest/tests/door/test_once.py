from __future__ import annotations

import httpx
import pytest
from tunewheel_runtime.store import ObjectStore

from .conftest import Log

TICKET = {"project": "p", "ticket_id": "T", "body": "b"}
KEY = {"Idempotency-Key": "k-1"}


async def test_the_same_request_again_gets_the_same_receipt(client: httpx.AsyncClient, log: Log) -> None:
    first = await client.post("/v1/tickets", json=TICKET, headers=KEY)
    again = await client.post("/v1/tickets", json=TICKET, headers=KEY)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(log.events) == 1


@pytest.mark.parametrize("path", ["/v1/tickets", "/v1/tickets?project=p"])
async def test_another_request_under_the_key_is_refused(
    client: httpx.AsyncClient, log: Log, path: str
) -> None:
    await client.post("/v1/tickets", json=TICKET, headers=KEY)
    body = TICKET if "?" in path else TICKET | {"body": "other"}
    other = await client.post(path, json=body, headers=KEY)
    assert other.status_code == 422
    assert other.json()["refused"][0]["field"] == "Idempotency-Key"
    assert len(log.events) == 1


async def test_another_key_or_another_path_is_another_request(client: httpx.AsyncClient, log: Log) -> None:
    await client.post("/v1/tickets", json=TICKET, headers=KEY)
    await client.post("/v1/tickets", json=TICKET, headers={"Idempotency-Key": "k-2"})
    example = {"project": "p", "example_id": "E", "input": "q", "output": "a"}
    assert (await client.post("/v1/examples", json=example, headers=KEY)).status_code == 202
    assert len(log.events) == 3


async def test_what_was_refused_or_failed_can_be_sent_again(client: httpx.AsyncClient, log: Log) -> None:
    wrong = TICKET | {"project": "nobody"}
    assert (await client.post("/v1/tickets", json=wrong, headers=KEY)).status_code == 422
    log.away = True
    assert (await client.post("/v1/tickets", json=TICKET, headers=KEY)).status_code == 503
    log.away = False
    assert (await client.post("/v1/tickets", json=TICKET, headers=KEY)).status_code == 202
    assert len(log.events) == 1


async def test_files_have_keys_too(client: httpx.AsyncClient, log: Log, store: ObjectStore) -> None:
    path = "/v1/documents/files?project=p&document_id=a.pdf"
    for _ in range(2):
        assert (await client.post(path, content=b"%PDF-", headers=KEY)).status_code == 202
    assert (await client.post(path, content=b"%PDF-1", headers=KEY)).status_code == 422
    assert len(log.events) == 1


async def test_a_key_has_bounds(client: httpx.AsyncClient, log: Log) -> None:
    answer = await client.post("/v1/tickets", json=TICKET, headers={"Idempotency-Key": "k" * 256})
    assert answer.json()["refused"][0] == {
        "line": 1,
        "field": "Idempotency-Key",
        "reason": "must have 1 to 255 characters; choose another",
    }
    assert log.events == []

"""How much one project may send, and that nobody else waits for it."""

from __future__ import annotations

import json
from itertools import count

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tunewheel_ingest.door.quota import OverQuota, Quota

from .conftest import Log

LINES = {"content-type": "application/x-ndjson"}
NUMBERS = count()


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(log: Log) -> Clock:
    clock = Clock()
    log.quota = Quota(10, clock=clock)
    return clock


def tickets(number: int, project: str = "p") -> bytes:
    made = ({"project": project, "ticket_id": f"T-{next(NUMBERS)}", "body": "b"} for _ in range(number))
    return b"\n".join(json.dumps(one).encode() for one in made)


async def send(client: httpx.AsyncClient, body: bytes) -> httpx.Response:
    return await client.post("/v1/tickets", content=body, headers=LINES)


async def test_who_sends_too_much_is_told_the_limit_the_setting_and_when(
    client: httpx.AsyncClient, log: Log, clock: Clock
) -> None:
    assert (await send(client, tickets(10))).status_code == 202
    refused = await send(client, tickets(1))
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    for part in ("'p'", "more than 10 events a minute", "TUNEWHEEL_PROJECT_EVENTS_PER_MINUTE", "in 1 s"):
        assert part in refused.json()["error"]
    assert (await send(client, tickets(3, "q"))).status_code == 202, "another project's share is its own"
    assert len(log.events) == 13
    clock.now += 6
    assert (await send(client, tickets(1))).status_code == 202
    assert (await send(client, tickets(1))).status_code == 429


async def test_a_body_that_is_longer_than_the_limit_gets_through_and_the_next_one_waits_for_it(
    client: httpx.AsyncClient, log: Log, clock: Clock
) -> None:
    sent = await send(client, tickets(35))  # batches of ten
    assert (sent.status_code, sent.json()["accepted"]) == (202, 35)
    refused = await send(client, tickets(1))
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "151")
    clock.now += 151
    assert (await send(client, tickets(1))).status_code == 202


async def test_a_body_of_several_projects_stops_at_the_first_line_of_one_that_sends_too_much(
    client: httpx.AsyncClient, log: Log, clock: Clock
) -> None:
    await send(client, tickets(10))
    body = b"\n".join((tickets(12, "q"), tickets(1), tickets(1, "q")))
    refused = await send(client, body)
    assert (refused.status_code, refused.json()["accepted"]) == (429, 10), "what was published before"
    clock.now += 60
    assert (await send(client, body)).json()["accepted"] == 14
    assert len({event.id for event in log.events}) == 10 + 14, "sent again, it is the same events"


async def test_an_erasure_never_waits_and_a_repeated_request_costs_nothing(
    client: httpx.AsyncClient, log: Log, clock: Clock
) -> None:
    body, key = tickets(10), {**LINES, "idempotency-key": "k"}
    assert (await client.post("/v1/tickets", content=body, headers=key)).status_code == 202
    again = await client.post("/v1/tickets", content=body, headers=key)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")
    late = {**LINES, "idempotency-key": "other"}
    assert (await client.post("/v1/tickets", content=tickets(1), headers=late)).status_code == 429
    erasure = {"project": "p", "erasure_id": "1", "requested_by": "m", "customer": "c"}
    assert (await client.post("/v1/erasures", json=erasure)).status_code == 202


async def test_a_file_and_a_withdrawal_count_as_events(
    client: httpx.AsyncClient, log: Log, clock: Clock
) -> None:
    where = {"project": "p", "document_id": "a.md"}
    await send(client, tickets(9))
    plain = {"content-type": "text/markdown"}
    for status in (202, 429):
        sent = await client.post("/v1/documents/files", params=where, content=b"# A", headers=plain)
        assert sent.status_code == status
    assert (await client.delete("/v1/documents/a.md", params={"project": "p"})).status_code == 429


async def test_without_a_limit_nobody_waits(client: httpx.AsyncClient, log: Log) -> None:
    assert [(await send(client, tickets(50))).status_code for _ in range(3)] == [202] * 3


@given(
    limit=st.integers(1, 500),
    requests=st.lists(st.tuples(st.integers(1, 2_000), st.floats(0, 90)), min_size=1, max_size=40),
)
@example(limit=2, requests=[(37, 1.8408307636502599), (1, 0.0)])
@example(limit=60, requests=[(1694, 32.36), (1, 0.0)])
def test_over_time_no_more_is_taken_than_the_limit_and_one_body(
    limit: int, requests: list[tuple[int, float]]
) -> None:
    clock = Clock()
    quota, began, taken = Quota(limit, clock=clock), clock.now, 0
    for events, pause in requests:
        clock.now += pause
        try:
            quota.admit("p")
        except OverQuota as error:
            clock.now += error.retry_after
            quota.admit("p")
        assert taken <= limit * (1 + (clock.now - began) / 60) + 1e-6
        quota.charge(["p"] * events)
        taken += events

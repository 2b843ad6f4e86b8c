"""Whose lines are taken: a body may name other projects than the query, which the guard of the route saw."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import structlog
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.store import ObjectStore

from .conftest import Log, key

LINES = {"content-type": "application/x-ndjson"}
FILES = "/v1/documents/files"


def lines(*projects: str) -> str:
    tickets = [{"project": p, "ticket_id": f"T-{n}", "body": "b"} for n, p in enumerate(projects)]
    return "\n".join(map(json.dumps, tickets))


async def test_lines_of_another_project_are_refused_and_the_others_go_through(
    guarded: httpx.AsyncClient, log: Log
) -> None:
    with structlog.testing.capture_logs() as logged:
        answer = await guarded.post(
            "/v1/tickets", content=lines("p", "q", "p", "q"), headers=key("desk", **LINES)
        )
    assert (answer.status_code, answer.json()["accepted"]) == (202, 2)
    assert [entry["event"] for entry in logged] == ["caller_refused"], "once for the request"
    assert [refusal["line"] for refusal in answer.json()["refused"]] == [2, 4]
    assert answer.json()["refused"][:1] == [
        {
            "line": 2,
            "field": "project",
            "reason": "desk lacks the role publisher in project 'q'; ask for it, or use another key",
        }
    ]
    assert [event.data.ticket_id for event in log.events] == ["T-0", "T-2"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (lines("q"), 403),
        (lines("q", "undeclared"), 403),
        (lines("q") + "\n{", 422),
        ("{", 422),
    ],
)
async def test_where_nothing_was_taken_403_says_that_only_the_role_was_missing(
    guarded: httpx.AsyncClient, log: Log, content: str, status: int
) -> None:
    for headers in (key("desk", **LINES), key("desk", **LINES, **{"idempotency-key": "k"})):
        answer = await guarded.post("/v1/tickets", content=content, headers=headers)
        assert (answer.status_code, answer.json()["accepted"], log.events) == (status, 0, [])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/tickets", {"ticket_id": "T", "body": "b"}),
        ("/v1/documents", {"document_id": "a.md", "content": "x"}),
        ("/v1/examples", {"example_id": "E", "input": "q", "output": "a"}),
    ],
)
async def test_what_the_body_says_counts_not_the_query(
    guarded: httpx.AsyncClient, log: Log, path: str, body: dict[str, str]
) -> None:
    for query, project, status in [("", "q", 403), ("?project=p", "q", 403), ("", "p", 202)]:
        answer = await guarded.post(f"{path}{query}", json={**body, "project": project}, headers=key("desk"))
        assert answer.status_code == status, (query, project)
    assert (await guarded.post(f"{path}?project=q", json=body, headers=key("desk"))).status_code == 403
    assert (await guarded.post(f"{path}?project=q", json=body, headers=key("everywhere"))).status_code == 202
    assert [event.project for event in log.events] == ["p", "q"]


async def test_an_erasure_is_an_operators(guarded: httpx.AsyncClient, log: Log) -> None:
    asked = {"project": "p", "erasure_id": "L-1", "customer": "C-7", "requested_by": "m"}
    for name, project, status in [("everywhere", "p", 403), ("dpo", "q", 403), ("dpo", "p", 202)]:
        answer = await guarded.post("/v1/erasures", json={**asked, "project": project}, headers=key(name))
        assert answer.status_code == status, name
    assert [event.project for event in log.events] == ["p"]


async def test_a_file_is_taken_by_the_project_of_its_form_and_refused_unread_where_the_query_says(
    guarded: httpx.AsyncClient, log: Log, store: ObjectStore
) -> None:
    form = {"files": {"file": ("a.md", b"x")}, "data": {"project": "q"}}
    for query in ("", "?project=p"):
        answer = await guarded.post(f"{FILES}{query}", headers=key("desk"), **form)
        assert (answer.status_code, answer.json()["refused"][0]["field"]) == (403, "project")
    for project in ("q", "p&project=q", "q&project=p"):
        url = f"{FILES}?project={project}&document_id=a.md"
        answer = await guarded.post(url, content=b"x", headers=key("other"))
        assert answer.status_code == (403 if project.endswith("p") else 202), project
    assert {event.project for event in log.events} == {"q"}
    assert len(await store.list("")) == 1


async def test_a_withdrawal_is_refused_by_its_project(guarded: httpx.AsyncClient, log: Log) -> None:
    for query, status in [("", 422), ("?project=q", 403), ("?project=p", 202)]:
        answer = await guarded.delete(f"/v1/documents/a.md{query}", headers=key("desk"))
        assert answer.status_code == status, query
    assert [event.project for event in log.events] == ["p"]


async def test_callers_are_not_in_each_others_way_with_their_idempotency_keys(
    guarded: httpx.AsyncClient, log: Log
) -> None:
    for name, content in [("desk", lines("p")), ("everywhere", lines("p", "q"))]:
        for replayed in (None, "true"):
            headers = key(name, **LINES, **{"idempotency-key": "k-1"})
            answer = await guarded.post("/v1/tickets", content=content, headers=headers)
            assert answer.status_code == 202, answer.text
            assert answer.headers.get("idempotency-replayed") == replayed
    assert len(log.events) == 3
    foreign = await guarded.post(
        "/v1/tickets", content=lines("p"), headers=key("other", **LINES, **{"idempotency-key": "k-1"})
    )
    assert foreign.status_code == 403, "what another caller was answered is not handed on"


async def test_events_name_their_caller_and_nobody_else_does(
    guarded: httpx.AsyncClient, client: httpx.AsyncClient, log: Log
) -> None:
    ticket = {"project": "p", "ticket_id": "T", "body": "b"}
    said = [
        ("principal", {"name": "ceo"}),
        ("principal", None),
        ("authority", "expert"),
    ]
    for field, value in said:
        answer = await guarded.post("/v1/tickets", json={**ticket, field: value}, headers=key("desk"))
        assert (answer.status_code, answer.json()["refused"][0]) == (
            422,
            {"line": 1, "field": field, "reason": "is set by the door; leave it out"},
        )
    assert log.events == []
    await guarded.post("/v1/tickets", json=ticket, headers=key("desk"))
    await guarded.post(f"{FILES}?project=p&document_id=a.md", content=b"x", headers=key("desk"))
    await guarded.delete("/v1/documents/a.md?project=p", headers=key("everywhere"))
    asked = {"project": "p", "erasure_id": "L-1", "customer": "C-7", "requested_by": "m"}
    await guarded.post("/v1/erasures", json=asked, headers=key("dpo"))
    await client.post("/v1/tickets", json=ticket)
    said = [(event.data.type, event.data.principal) for event in log.events]
    assert said == [
        ("ticket.published", Principal(name="desk")),
        ("document.published", Principal(name="desk")),
        ("document.withdrawn", Principal(name="everywhere")),
        ("erasure.requested", Principal(name="dpo")),
        ("ticket.published", None),
    ]
    assert log.events[0].id == log.events[-1].id, "the same ticket is the same event, whoever sends it"


async def test_the_callers_roles_grant_the_trust_of_what_they_send(
    guarded: httpx.AsyncClient, client: httpx.AsyncClient, log: Log
) -> None:
    ticket = {"project": "p", "ticket_id": "T", "body": "b", "answer": "a", "validated_by": "eve"}
    document = {"project": "p", "document_id": "a.md", "content": "x"}
    told = list[Any]()
    for name in ("desk", "lead", "elsewhere"):
        answers = [
            await guarded.post(f"/v1/{kind}", json=body, headers=key(name))
            for kind, body in (("tickets", ticket), ("documents", document))
        ]
        assert [one.status_code for one in answers] == [202, 202]
        told += [one.json().get("lowered") for one in answers]
    granted = [event.data.authority for event in log.events]
    assert granted == ["unverified", None, "expert", "expert", "unverified", None]
    assert [one and (one["count"], one["trust"]) for one in told] == [
        (1, "unverified"), None, None, None, (1, "unverified"), None,
    ]  # fmt: skip
    assert "desk lacks the role expert in project 'p'" in told[0]["reason"]
    open_to_all = await client.post("/v1/tickets", json=ticket)
    assert "lowered" not in open_to_all.json()


async def test_a_receipt_counts_all_answers_that_are_lowered(guarded: httpx.AsyncClient) -> None:
    ticket = {"project": "p", "body": "b", "answer": "a"}
    who = [{"validated_by": "eve"}, {}]
    body = "\n".join(json.dumps(ticket | {"ticket_id": f"T-{n}"} | who[n % 2]) for n in range(50))
    answer = await guarded.post("/v1/tickets", content=body, headers=key("desk", **LINES))
    assert (answer.json()["accepted"], answer.json()["lowered"]["count"]) == (50, 25)

"""Who reads the log, and what was refused."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_console.letters import Letters
from tunewheel_contracts.api.services import GroupLag
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.kafka_refusals import NotAllowed
from tunewheel_runtime.lag import TopicsMissing, lag_of


def letter(offset: int, *, project: str = "desk", at: int = 0) -> Undecoded:
    headers = {
        "ce_id": f"event-{offset}", "ce_project": project, "dlq_service": "train", "dlq_field": "run_id",
        "dlq_reason": "is missing; add it", "dlq_source_topic": "train.control", "dlq_source_partition": "0",
        "dlq_source_offset": str(offset),
    }  # fmt: skip
    raw = {name: value.encode() for name, value in headers.items()}
    return Undecoded(Position("train.control.dlq", 0, at), None, b"a customer's text", raw, logged_ms=at)


async def test_groups_tell_their_lag_and_services_without_a_process_are_named(ask: Any, lags: list[GroupLag]):
    lags += [
        lag_of("train.dataset-versioned", "dataset.versioned", 7, ("10.0.0.1",)),
        lag_of("eval.train-completed", "train.completed", visible=False),
    ]
    found = (await ask("/services")).json()
    first = found["groups"][0]
    assert (first["service"], first["behind"], first["hosts"]) == ("train", 7, ["10.0.0.1"])
    assert found["hidden"] == ["eval.train-completed"]
    assert "ingest" in found["silent"]
    assert not {"train", "eval"} & {*found["silent"]}


@pytest.mark.parametrize("error", [TopicsMissing("acme."), NotAllowed("describe"), TransientError("away")])
async def test_a_cluster_that_cannot_be_asked_is_told(ask: Any, lags: Any, error: Exception):
    lags.append(error)
    answer = await ask("/services")
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, str(error))


async def test_dead_letters_are_listed_newest_first_without_texts(ask: Any, letters: Letters):
    for n in range(3):
        letters.add(letter(n, at=n, project="shop" if n == 1 else "desk"))
    letters.add(letter(2, at=9))  # a service that was killed writes its last letter again
    answer = await ask("/dead-letters")
    page = answer.json()
    assert [one["offset"] for one in page["items"]] == [2, 1, 0]
    assert (page["total"], page["items"][0]["field"]) == (3, "run_id")
    assert "customer" not in answer.text
    page = (await ask("/dead-letters", project="shop", topic="train.control")).json()
    assert [one["event_id"] for one in page["items"]] == ["event-1"]
    assert not (await ask("/dead-letters", topic="ticket.published")).json()["items"]


@pytest.mark.parametrize("projects", [set[str](), {"desk"}])
async def test_dead_letters_are_told_to_viewers_of_all_projects_alone(ask: Any, projects: set[str]):
    assert (await ask("/dead-letters", projects)).status_code == 403
    assert (await ask("/dead-letters", projects, project="desk")).status_code == 403


async def test_a_letter_without_headers_is_listed_by_its_own_place(ask: Any, letters: Letters):
    letters.add(Undecoded(Position("ticket.published.dlq", 2, 5), None, b"", {}))
    (one,) = (await ask("/dead-letters")).json()["items"]
    assert (one["topic"], one["offset"], one["at"], one["project"]) == ("ticket.published", -1, None, None)

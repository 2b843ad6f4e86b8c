"""Tunewheel's own Python client answers labels and reviews, and commands runs and models, over the real
routes."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_client import AsyncClient, Conflict, NotFound, Refused
from tunewheel_runtime.store import ObjectStore

SOLAR = {"category": "solar"}
SCHEMA = {"type": "object", "properties": {"category": {"enum": ["battery", "solar"]}}}


def client_of(console: Any, name: str) -> AsyncClient:
    return AsyncClient("http://console", "k", http=console.client(name))


async def test_questions_of_an_alarm_are_answered(console: Any, desk: Any, store: ObjectStore, log: Any):
    log.events += [desk.declared(output_schema=SCHEMA), await desk.stored_labels(store, prompts=3)]
    await console.refresh()
    ann = client_of(console, "ann")
    (request,) = (await ann.labels.list("desk")).requests
    assert (request.state, request.wanted, request.keywords) == ("waiting", 2, ("solar", "roof"))
    shown = await ann.labels.show("desk", request.request_id)
    assert ([item.state for item in shown.items], shown.next) == (["open"] * 3, 1)
    assert [field.name for field in shown.fields] == ["category"]
    item = await ann.labels.item("desk", request.request_id, 1)
    assert (item.of, item.messages[0].content) == (3, "My roof panel 0 hums.")
    with pytest.raises(Refused) as error:
        await ann.labels.answer("desk", request.request_id, 1, {"category": "moon"})
    assert "category" in str(error.value)
    progress = await ann.labels.answer("desk", request.request_id, 1, SOLAR)
    assert (progress.number, progress.answered, progress.next) == (1, 1, 2)
    progress = await ann.labels.answer("desk", request.request_id, 2, out_of_scope=True)
    assert (progress.out_of_scope, progress.next) == (1, 3)
    published = [event.data for event in log.events if event.data.type == "example.published"]
    assert [(one.output, one.attributes.get("out_of_scope")) for one in published] == [
        (SOLAR, None),
        ("", "true"),
    ]


async def test_answers_are_compared_blindly_and_submitted(console: Any, log: Any):
    ann = client_of(console, "ann")
    listed = await ann.reviews.list("desk")
    assert (listed.reviewer, listed.reviews[0].state) == ("ann", "waiting")
    with pytest.raises(Conflict):
        await ann.reviews.submit("desk", "rev-1", "approved")
    with pytest.raises(NotFound):
        await ann.reviews.show("desk", "rev-2")
    for number in (1, 2):
        item = await ann.reviews.item("desk", "rev-1", number)
        assert {item.left[:3], item.right[:3]} == {"new", "old"}
        progress = await ann.reviews.answer("desk", "rev-1", number, "left", reasons=["tone"])
    assert (progress.number, progress.next, progress.revealed) == (2, None, None)
    assert (await ann.reviews.item("desk", "rev-1", 1)).answer == {
        "choice": "left", "reasons": ["tone"], "corrected": None,
    }  # fmt: skip
    done = await ann.reviews.submit("desk", "rev-1", "approved", comment="fine")
    assert done.revealed is not None
    assert (done.state, done.revealed.candidate, sum(done.revealed.preferences.values())) == (
        "submitted", "desk-1", 2,
    )  # fmt: skip
    assert log.events[-1].data.comment == "fine"

"""Answers over the API's routes, on a log and a store that can fail."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.store import ObjectStore

PLACE = "/v1/projects/desk/reviews"
REVIEW = f"{PLACE}/rev-1"


@pytest.fixture
async def ann(console: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with console.client("ann") as client:
        yield client


async def answer_all(client: httpx.AsyncClient) -> None:
    progress = (await client.get(REVIEW)).json()
    for number in range(1, progress["items"] + 1):
        answer = await client.put(f"{REVIEW}/items/{number}/answer", json={"choice": "left"})
        assert answer.status_code == 200, answer.text


async def test_people_share_the_items_and_see_no_role(console: Any, ann: httpx.AsyncClient, log: Any):
    async with console.client("bob") as bob:
        prompts: list[str] = []
        for client in (ann, bob):
            assert (await client.get(REVIEW)).json()["items"] == 2
            for number in (1, 2):
                found = (await client.get(f"{REVIEW}/items/{number}")).json()
                assert {found["left"][:3], found["right"][:3]} == {"new", "old"}
                prompts.append(found["messages"][0]["content"])
        assert len(set(prompts)) == 4, "each item is judged once"
        await answer_all(ann)
        said = await ann.post(f"{REVIEW}/submit", json={"verdict": "approved", "comment": "fine"})
        assert (said.status_code, said.json()["state"]) == (201, "submitted")
        assert said.json()["revealed"]["candidate"] == "desk-1"
        assert "revealed" not in (await bob.get(REVIEW)).json()
    answers, (submission,) = log.events[1:3], log.events[3:]
    assert {event.data.preference for event in answers} <= {"better", "worse"}
    assert {event.causation_id for event in (*answers, submission)} == {log.events[0].id}
    assert (submission.data.reviewer, submission.data.review_id) == ("ann", "rev-1")
    assert submission.data.principal == Principal(name="ann")


async def test_another_console_goes_on_where_this_one_was(
    console: Any, log: Any, store: ObjectStore, ann: httpx.AsyncClient
):
    before = [(await ann.get(f"{REVIEW}/items/{number}")).json() for number in (1, 2)]
    await ann.put(f"{REVIEW}/items/1/answer", json={"choice": "right", "reasons": ["tone"]})
    other = type(console)(log, store)
    await other.refresh()
    async with other.client("bob") as bob, other.client("ann") as again:
        assert (await bob.get(REVIEW)).json()["answered"] == 0, "bob comes second, wherever he comes"
        assert (await again.get(REVIEW)).json()["next"] == 2
        after = [(await again.get(f"{REVIEW}/items/{number}")).json() for number in (1, 2)]
    assert after[0].pop("answer") == {"choice": "right", "reasons": ["tone"], "corrected": None}
    assert [one | {"answer": None} for one in after] == before, "the same sides, in the same order"


async def test_the_share_of_somebody_who_stays_away_goes_to_the_next(console: Any, ann: httpx.AsyncClient):
    async with console.client("bob") as bob, console.client("cyd") as cyd:
        await answer_all(ann)
        of_bob = (await bob.get(f"{REVIEW}/items/1")).json()["messages"]
        prompts = [(await cyd.get(f"{REVIEW}/items/{number}")).json()["messages"] for number in (1, 2)]
        assert of_bob in prompts


async def test_the_latest_review_is_named_by_that_word_too(ann: httpx.AsyncClient, log: Any):
    assert (await ann.get(f"{PLACE}/latest")).json()["review_id"] == "rev-1"
    said = await ann.put(f"{PLACE}/latest/items/1/answer", json={"choice": "left"})
    assert said.json()["answered"] == 1
    assert log.events[-1].data.review_id == "rev-1"


async def test_a_changed_answer_is_a_revision_and_the_same_again_is_nothing(ann: httpx.AsyncClient, log: Any):
    for choice in ("left", "left", "same", "same"):
        assert (await ann.put(f"{REVIEW}/items/1/answer", json={"choice": choice})).json()["answered"] == 1
    assert [event.data.revision for event in log.events[1:]] == [1, 2]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("GET", f"{PLACE}/rev-2", None, 404, "review_id"),
        ("GET", f"{REVIEW}/items/3", None, 404, "item"),
        ("GET", f"{REVIEW}/items/0", None, 404, "item"),
        ("PUT", f"{REVIEW}/items/3/answer", {"choice": "left"}, 404, "item"),
        ("PUT", f"{REVIEW}/items/1/answer", {"choice": "better"}, 422, "choice"),
        ("PUT", f"{REVIEW}/items/1/answer", {"choice": "left", "reasons": ["a\nb"]}, 422, "reasons"),
        ("PUT", f"{REVIEW}/items/1/answer", {"choice": "left", "why": "tone"}, 422, "why"),
        ("PUT", f"{REVIEW}/items/1/answer", {"choice": "left", "corrected": "x" * 100_001}, 422, "corrected"),
        ("POST", f"{REVIEW}/submit", {"verdict": "maybe"}, 422, "verdict"),
        ("POST", f"{REVIEW}/submit", {"verdict": "approved"}, 409, "items: 2 of 2 are not answered"),
        ("GET", f"{REVIEW}?reviewer=bob", None, 422, "reviewer"),
        ("GET", "/v1/projects/shop/reviews", None, 403, "shop"),
    ],
)
async def test_what_cannot_be_done_names_the_field(
    ann: httpx.AsyncClient, log: Any, method: str, path: str, body: Any, status: int, field: str
):
    answer = await ann.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert field in answer.text
    assert len(log.events) == 1


async def test_who_has_submitted_says_nothing_more(console: Any, ann: httpx.AsyncClient, log: Any):
    await answer_all(ann)
    for status in (201, 409):
        answer = await ann.post(f"{REVIEW}/submit", json={"verdict": "approved"})
        assert answer.status_code == status, answer.text
    answer = await ann.put(f"{REVIEW}/items/1/answer", json={"choice": "same"})
    assert (answer.status_code, "submitted" in answer.text) == (409, True)
    assert len(log.events) == 4


async def test_a_submission_through_another_console_counts_here(
    console: Any, log: Any, store: ObjectStore, ann: httpx.AsyncClient
):
    await answer_all(ann)
    other = type(console)(log, store)
    await other.refresh()
    async with other.client("ann") as again:
        assert (await again.post(f"{REVIEW}/submit", json={"verdict": "rejected"})).status_code == 201
    assert (await ann.post(f"{REVIEW}/submit", json={"verdict": "approved"})).status_code == 409


async def test_a_review_that_has_ended_takes_no_answers(console: Any, desk: Any, ann: httpx.AsyncClient):
    await ann.get(REVIEW)
    console.state.apply(desk.passed_now())
    for method, path, body in (
        ("PUT", f"{REVIEW}/items/1/answer", {"choice": "left"}),
        ("POST", f"{REVIEW}/submit", {"verdict": "approved"}),
    ):
        answer = await ann.request(method, path, json=body)
        assert (answer.status_code, "has ended: passed" in answer.text) == (409, True)
    assert (await ann.get(REVIEW)).json()["outcome"] == "passed"
    async with console.client("late") as late:
        assert (await late.get(REVIEW)).status_code == 409
        assert [one["state"] for one in (await late.get(PLACE)).json()["reviews"]] == ["ended"]


async def test_without_a_broker_nothing_is_kept(ann: httpx.AsyncClient, log: Any):
    log.away = True
    answer = await ann.put(f"{REVIEW}/items/1/answer", json={"choice": "left"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the broker is away")
    assert (await ann.get(REVIEW)).json()["answered"] == 0


async def test_a_set_that_is_not_what_was_asked_for_is_shown_to_nobody(console: Any, store: ObjectStore):
    await store.replace("reviews/rev-1.json", b"{}")
    async with console.client("ann") as ann:
        answer = await ann.get(REVIEW)
    assert (answer.status_code, answer.json()["error"]["param"]) == (503, "review_set")


async def test_an_erasure_leaves_a_gap_and_then_nothing(console: Any, store: ObjectStore, ann: Any, log: Any):
    await answer_all(ann)
    texts = [(await ann.get(f"{REVIEW}/items/{number}")).json() for number in (1, 2)]
    whole = json.loads(await store.read("reviews/rev-1.json") or b"")
    left = [one for one in whole["items"] if one["candidate"] not in (texts[0]["left"], texts[0]["right"])]
    await store.replace("reviews/rev-1.json", json.dumps(whole | {"items": left}).encode())
    assert (await ann.get(f"{REVIEW}/items/1")).status_code == 410
    assert (await ann.get(f"{REVIEW}/items/2")).json() == texts[1], "its number and its sides are the same"
    assert (await ann.post(f"{REVIEW}/submit", json={"verdict": "approved"})).status_code == 201
    await store.delete(["reviews/rev-1.json"])
    assert (await ann.get(REVIEW)).status_code == 410


async def test_where_identity_is_open_a_name_is_asked_for(console: Any):
    async with console.client(None) as anybody:
        answer = await anybody.get(REVIEW)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "reviewer")
        assert (await anybody.get(f"{REVIEW}?reviewer=ann")).json()["items"] == 2


async def test_only_reviewers_see_reviews(console: Any):
    async with console.client("vic", Role.VIEWER, Role.OPERATOR) as vic:
        for path in (PLACE, REVIEW, f"{REVIEW}/items/1"):
            assert (await vic.get(path)).status_code == 403

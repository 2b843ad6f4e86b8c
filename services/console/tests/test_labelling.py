"""Answers to prompts of production over the API's routes, on a log and a store that can fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tunewheel_console.label_queue import Mark
from tunewheel_console.labelling import HELD_SECONDS
from tunewheel_contracts.events.turns import AlarmAnswer, TurnDecided
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.store import ObjectStore

PLACE = "/v1/projects/desk/labels"
REQUEST = f"{PLACE}/alarm-1"
SCHEMA = {
    "type": "object",
    "properties": {"category": {"enum": ["battery", "solar"]}, "reply": {"type": "string"}},
    "required": ["category"],
}
SOLAR = {"category": "solar", "reply": "Dear A"}


@pytest.fixture
async def labels(console: Any, desk: Any, store: ObjectStore) -> Any:
    """A console that has read of three prompts to be answered."""
    for event in (desk.declared(output_schema=SCHEMA), await desk.stored_labels(store, prompts=3)):
        console.log.events.append(event)
    await console.refresh()
    return console


@pytest.fixture
async def ann(labels: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with labels.client("ann") as client:
        yield client


def published(log: Any) -> list[Any]:
    return [event for event in log.events if event.data.type == "example.published"]


async def put(client: httpx.AsyncClient, number: int, **body: Any) -> httpx.Response:
    return await client.put(f"{REQUEST}/items/{number}/answer", json=body)


async def test_after_a_turn_that_failed_as_many_answers_are_wanted_as_curate_waits_for(
    labels: Any, ann: Any, desk: Any
) -> None:
    waits = AlarmAnswer(
        alarm_id="alarm-1", detector="novelty", follows="collect_labels", labels=2, labels_needed=4
    )
    decided = TurnDecided(project="desk", step="waits for labels", alarms=(waits,))
    labels.log.events.append(desk.event(decided))
    await labels.refresh()
    (told,) = (await ann.get(PLACE)).json()["requests"]
    assert (told["wanted"], told["prompts"]) == (4, 3)


async def test_an_answer_is_an_example_that_names_person_request_and_completion(ann: Any, log: Any) -> None:
    (told,) = (await ann.get(PLACE)).json()["requests"]
    assert (told["keywords"], told["wanted"], told["prompts"]) == (["solar", "roof"], 2, 3)
    assert (told["state"], told["answered"]) == ("waiting", 0)
    item = (await ann.get(f"{REQUEST}/items/1")).json()
    assert item["messages"] == [{"role": "user", "content": "My roof panel 0 hums."}]
    assert (item["state"], item["model_output"]) == ("open", '{"category": "battery"}')
    answer = await put(ann, 1, output=SOLAR)
    assert (answer.status_code, answer.json()["answered"], answer.json()["next"]) == (200, 1, 2)
    (event,) = published(log)
    example = event.data
    assert (example.example_id, example.group, example.input) == (
        "cmpl-0", "customer-0", "My roof panel 0 hums.",
    )  # fmt: skip
    assert (example.output, example.messages) == (SOLAR, ())
    assert (example.validated_by, example.principal) == ("ann", Principal(name="ann"))
    assert example.validated_at is not None
    assert example.attributes == {"label_request": "alarm-1"}
    request = next(one for one in log.events if one.data.type == "labels.requested")
    assert event.causation_id == request.id


async def test_later_revisions_add_prompts_at_the_end_whatever_comes_twice(
    labels: Any, desk: Any, ann: Any, store: ObjectStore
) -> None:
    await put(ann, 2, output=SOLAR)
    first = next(one for one in labels.log.events if one.data.type == "labels.requested")
    kept = json.loads(await store.read("prompts.json") or b"")
    more = kept | {"items": [kept["items"][0] | {"completion_id": "cmpl-9"}]}
    await store.replace("more.json", json.dumps(more).encode())
    grown = first.data.model_copy(
        update={
            "revision": 3,
            "completion_ids": (*first.data.completion_ids, "cmpl-8", "cmpl-9"),
            "more_prompts": ("nothing-to-read.json", "more.json"),
        }
    )
    labels.state.apply(desk.event(grown))
    labels.state.apply(first)
    (told,) = (await ann.get(PLACE)).json()["requests"]
    assert (told["prompts"], told["answered"]) == (5, 1)
    told = (await ann.get(REQUEST)).json()
    assert [one["state"] for one in told["items"]] == ["open", "answered", "open", "open"]
    assert (await put(ann, 4, output=SOLAR)).json()["answered"] == 2


async def test_the_form_is_told_and_the_next_prompt_is_the_first_open_one(ann: Any) -> None:
    told = (await ann.get(REQUEST)).json()
    assert [(field["name"], field["kind"]) for field in told["fields"]] == [
        ("category", "choice"), ("reply", "text"),
    ]  # fmt: skip
    await put(ann, 2, output=json.dumps(SOLAR))
    await put(ann, 3, out_of_scope=True)
    told = (await ann.get(REQUEST)).json()
    assert [one["state"] for one in told["items"]] == ["open", "answered", "out_of_scope"]
    assert (told["answered"], told["out_of_scope"], told["next"]) == (1, 1, 1)


async def test_a_second_answer_takes_the_place_of_the_first_whoever_gives_it(
    labels: Any, ann: Any, log: Any
) -> None:
    await put(ann, 1, output=SOLAR)
    async with labels.client("bob") as bob:
        assert (await put(bob, 1, output={"category": "battery"})).json()["answered"] == 1
    first, second = published(log)
    assert first.data.example_id == second.data.example_id
    assert first.data.validated_at <= second.data.validated_at
    assert first.id != second.id


async def test_an_answer_that_was_given_earlier_replaces_no_later_one(ann: Any, log: Any) -> None:
    old, new = "2026-03-01T10:00:00Z", "2026-03-02T10:00:00+01:00"
    for at, output, status in (
        (new, SOLAR, 200), (new, SOLAR, 200), (old, {"category": "battery"}, 409), (None, SOLAR, 200),
        (new, {"category": "battery"}, 409), ("2999-01-01T00:00:00Z", SOLAR, 422),
    ):  # fmt: skip
        answer = await put(ann, 1, output=output, answered_at=at)
        assert answer.status_code == status, answer.text
        assert status == 200 or answer.json()["error"]["param"] == "answered_at"
    assert (await put(ann, 1, out_of_scope=True, answered_at=old)).status_code == 409
    said = published(log)
    assert [event.data.output for event in said] == [SOLAR] * 3
    assert said[0].data.validated_at.isoformat() == "2026-03-02T09:00:00+00:00"
    assert said[0].id == said[1].id, "the same import twice is one answer"


async def test_the_latest_request_is_named_by_that_word_too(ann: Any) -> None:
    assert (await put(ann, 1, output=SOLAR)).status_code == 200
    for told in ((await ann.get(f"{PLACE}/latest")).json(), (await ann.get(REQUEST)).json()):
        assert (told["request_id"], told["answered"]) == (REQUEST.rpartition("/")[2], 1)
    answered = await ann.put(f"{PLACE}/latest/items/2/answer", json={"output": SOLAR})
    assert answered.json()["answered"] == 2
    assert (await ann.get(f"{PLACE}/alarm-")).json()["answered"] == 2, "a unique beginning"


async def test_another_console_and_one_that_just_started_go_on_where_this_one_was(
    labels: Any, ann: Any, log: Any, store: ObjectStore
) -> None:
    await put(ann, 1, output=SOLAR)
    other = type(labels)(log, store)
    async with other.client("bob") as bob:
        assert (await bob.get(f"{REQUEST}/items/1")).json()["state"] == "answered"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("GET", f"{PLACE}/alarm-2", None, 404, "request_id"),
        ("GET", f"{REQUEST}/items/4", None, 404, "item"),
        ("PUT", f"{REQUEST}/items/0/answer", {"output": SOLAR}, 404, "item"),
        ("PUT", f"{REQUEST}/items/1/answer", {"output": {"category": "roof"}}, 422, "output.category"),
        ("PUT", f"{REQUEST}/items/1/answer", {"output": {"reply": "x"}}, 422, "output.category: is missing"),
        ("PUT", f"{REQUEST}/items/1/answer", {"output": "solar"}, 422, "output: is not JSON"),
        ("PUT", f"{REQUEST}/items/1/answer", {}, 422, "output"),
        ("PUT", f"{REQUEST}/items/1/answer", {"output": SOLAR, "out_of_scope": True}, 422, "output"),
        ("PUT", f"{REQUEST}/items/1/answer?reviewer=bob", {"output": SOLAR}, 422, "reviewer"),
        ("GET", "/v1/projects/shop/labels", None, 403, "shop"),
    ],
)
async def test_what_cannot_be_done_names_the_field_and_publishes_nothing(
    ann: httpx.AsyncClient, log: Any, method: str, path: str, body: Any, status: int, field: str
) -> None:
    answer = await ann.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert field in answer.text
    assert published(log) == []


async def test_what_was_erased_is_asked_of_nobody(ann: Any, log: Any, store: ObjectStore) -> None:
    whole = json.loads(await store.read("prompts.json") or b"")
    whole["items"][0] |= {"messages": [], "output": "", "customer": None}
    await store.replace("prompts.json", json.dumps(whole).encode())
    told = (await ann.get(REQUEST)).json()
    assert ([one["state"] for one in told["items"]], told["next"]) == (["erased", "open", "open"], 2)
    for method, body in (("GET", None), ("PUT", {"output": SOLAR})):
        path = f"{REQUEST}/items/1" + ("/answer" if body else "")
        assert (await ann.request(method, path, json=body)).status_code == 410
    await store.replace("prompts.json", b"[]")
    assert (await ann.get(REQUEST)).status_code == 503
    await store.delete(["prompts.json"])
    assert ("prompts" in (await ann.get(REQUEST)).text, published(log)) == (True, [])


async def test_without_a_broker_nothing_is_kept(ann: Any, log: Any) -> None:
    log.away = True
    answer = await put(ann, 1, output=SOLAR)
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the broker is away")
    assert (await ann.get(REQUEST)).json()["answered"] == 0


async def test_what_another_system_answered_is_asked_of_nobody_again(
    labels: Any, desk: Any, ann: Any
) -> None:
    for source, trust in (("cmpl-0", "expert"), ("cmpl-1", "unverified"), ("elsewhere", "expert")):
        labels.state.apply(desk.ingested(source, trust))
    told = (await ann.get(REQUEST)).json()
    assert ([one["state"] for one in told["items"]], told["answered"]) == (["answered", "open", "open"], 1)
    assert (await put(ann, 1, output=SOLAR, answered_at="2026-03-01T10:00:00Z")).status_code == 409
    await put(ann, 1, output=SOLAR)
    (told,) = (await ann.get(PLACE)).json()["requests"]
    assert told["answered"] == 1, "by whomever, a prompt counts once"


async def test_a_request_ends_with_its_alarm(labels: Any, desk: Any, ann: Any) -> None:
    labels.state.apply(desk.resolved())
    (told,) = (await ann.get(PLACE)).json()["requests"]
    assert (told["state"], told["outcome"]) == ("ended", "covered")
    assert labels.state.projects["desk"].labels.waiting == []


async def test_only_reviewers_see_prompts(labels: Any) -> None:
    async with labels.client("vic", Role.VIEWER, Role.OPERATOR) as vic:
        for path in (PLACE, REQUEST, f"{REQUEST}/items/1"):
            assert (await vic.get(path)).status_code == 403


async def test_a_request_that_a_person_made_ends_with_its_last_prompt(
    labels: Any, ann: Any, desk: Any, store: ObjectStore
) -> None:
    asked = (await desk.stored_labels(store, prompts=3)).data.model_copy(update={"asked_by": "zoe"})
    own = {"request_id": "labels-chosen-1", "alarm_id": "chosen-1", "completion_ids": asked.completion_ids}
    labels.log.events.append(desk.event(asked.model_copy(update=own)))
    await labels.refresh()
    for number in (1, 2, 3):
        told = (await ann.get(PLACE)).json()["requests"][-1]
        assert (told["request_id"], told["asked_by"], told["state"]) == ("labels-chosen-1", "zoe", "waiting")
        place = f"{PLACE}/labels-chosen-1/items/{number}/answer"
        told = (await ann.put(place, json={"out_of_scope": True})).json()
    assert told["state"] == "ended"
    assert (await ann.get(PLACE)).json()["requests"][-1]["outcome"] == "every prompt is done"


async def test_an_answer_replaces_none_that_its_person_has_not_seen(labels: Any, ann: Any, log: Any) -> None:
    seen = (await ann.get(f"{REQUEST}/items/1")).json()["version"]
    async with labels.client("bob") as bob:
        assert (await put(bob, 1, output=SOLAR, seen=seen)).status_code == 200
    late = await put(ann, 1, output={"category": "battery"}, seen=seen)
    assert (late.status_code, late.json()["error"]["param"]) == (409, "seen")
    assert "by bob" in late.text
    told = (await ann.get(f"{REQUEST}/items/1")).json()
    assert (told["answered_by"], told["given_values"]) == ("bob", SOLAR)
    assert (await put(ann, 1, output={"category": "battery"}, seen=told["version"])).status_code == 200
    assert (await put(ann, 1, output=SOLAR)).status_code == 200, "a program may replace any answer"
    assert [event.data.validated_by for event in published(log)] == ["bob", "ann", "ann"]


async def test_two_who_answer_at_once_do_not_both_answer_the_same_item(labels: Any, log: Any) -> None:
    async with labels.client("ann") as ann, labels.client("bob") as bob:
        found = await asyncio.gather(*(put(one, 1, output=SOLAR, seen="none") for one in (ann, bob)))
    assert sorted(one.status_code for one in found) == [200, 409]
    assert len(published(log)) == 1


@pytest.fixture
async def twins(labels: Any) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Ann at one console and bob at another one, which share the log and the store."""
    other = type(labels)(labels.log, labels.reviewing.store)
    await other.refresh()
    async with labels.client("ann") as ann, other.client("bob") as bob:
        yield ann, bob


@pytest.mark.parametrize("body", [{"output": SOLAR}, {"out_of_scope": True}])
async def test_of_two_who_answer_at_once_at_two_consoles_one_is_told(twins: Any, log: Any, body: Any) -> None:
    found = await asyncio.gather(*(put(one, 1, seen="none", **body) for one in twins))
    assert sorted(one.status_code for one in found) == [200, 409]
    (first,) = published(log)
    won, lost = sorted(found, key=lambda one: one.status_code)
    assert (lost.json()["error"]["param"], first.data.validated_by in lost.text) == ("seen", True)
    late = twins[found.index(lost)]
    told = (await late.get(f"{REQUEST}/items/1")).json()
    assert (told["answered_by"], won.json()["next"]) == (first.data.validated_by, 2)
    assert (await put(late, 1, seen=told["version"], output=SOLAR)).status_code == 200
    assert len(published(log)) == 2


async def test_a_console_that_was_killed_before_the_answer_keeps_others_waiting_for_a_minute(
    twins: Any, labels: Any, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = twins
    log.refusals = 1
    assert (await put(ann, 1, seen="none", output=SOLAR)).status_code == 503
    assert (await put(bob, 1, seen="none", output=SOLAR)).status_code == 409
    assert (await put(ann, 2, seen="none", output=SOLAR)).status_code == 200
    monkeypatch.setattr("tunewheel_console.labelling.CLAIM_SECONDS", -1.0)
    assert (await put(bob, 1, seen="none", output=SOLAR)).status_code == 200
    assert [event.data.validated_by for event in published(log)] == ["ann", "bob"]


@pytest.mark.parametrize("seconds", [-61, -3_600, 61, 3_600], ids=["old", "older", "ahead", "far ahead"])
async def test_after_a_claim_that_does_not_count_any_more_the_next_one_counts(
    twins: Any, labels: Any, log: Any, store: ObjectStore, seconds: int
) -> None:
    ann, bob = twins
    log.refusals = 1
    assert (await put(ann, 1, seen="none", output=SOLAR)).status_code == 503
    folder = "labels/desk/alarm-1.claims"
    for name, data in (await store.read_folder(folder)).items():
        claim = Mark.model_validate_json(data)
        moved = claim.model_copy(update={"at": claim.at + timedelta(seconds=seconds)})
        await store.replace(f"{folder}/{name}", moved.model_dump_json().encode())
    queue = await labels.labelling.open("desk", "alarm-1", "bob")
    assert await labels.labelling.claim(queue, 1, "bob") is None
    assert (await put(ann, 1, seen="none", output=SOLAR)).status_code == 409, "bob answers it now"
    assert (await put(bob, 1, seen="none", output=SOLAR)).status_code == 200
    assert [event.data.validated_by for event in published(log)] == ["bob"]


async def test_two_people_are_asked_for_different_items_until_one_has_left_for_long(labels: Any) -> None:
    now = 0.0
    labels.labelling.clock = lambda: now
    async with labels.client("ann") as ann, labels.client("bob") as bob:
        assert (await ann.get(f"{REQUEST}/items/1")).json()["others"] == []
        assert [(await one.get(REQUEST)).json()["next"] for one in (ann, bob)] == [1, 2]
        told = (await bob.get(f"{REQUEST}/items/1")).json()
        assert (told["others"], told["following"]) == (["ann"], 2)
        now = HELD_SECONDS + 1
        assert (await bob.get(REQUEST)).json()["next"] == 1


async def test_a_skipped_item_comes_again_at_the_end_and_back_goes_the_way_back(ann: Any) -> None:
    async def way(number: int) -> tuple[int | None, int | None]:
        told = (await ann.get(f"{REQUEST}/items/{number}")).json()
        return told["previous"], told["following"]

    assert await way(1) == (None, 2)
    assert (await put(ann, 2, output=SOLAR)).json()["next"] == 3
    assert await way(3) == (2, 1)
    assert (await put(ann, 3, output=SOLAR)).json()["next"] == 1, "it was skipped"
    assert await way(1) == (None, None)
    assert (await put(ann, 1, output=SOLAR)).json()["next"] is None

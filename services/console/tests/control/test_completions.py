"""Completions are listed, searched and shown to reviewers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tunewheel_console.actions import Actions
from tunewheel_console.completions import Completions, Kept
from tunewheel_console.control.completions import add_choosing, add_completions
from tunewheel_contracts.erasures import Erasure
from tunewheel_runtime.deadletter import Position
from tunewheel_runtime.identity.roles import Role

PLACE = "projects/desk/completions"


@pytest.fixture(autouse=True)
async def answered(state: Any, desk: Any, store: Any, completions: Completions) -> None:
    """Twelve answers, the odd ones of a canary; the last is in an alarm and in its request for labels."""
    for event in desk.turn()[:-1]:
        state.apply(event)
    state.apply(await desk.stored_labels(store, prompts=12))
    cluster = {"prompts": 9, "share": 0.1, "completion_ids": ("cmpl-11",)}
    told = desk.drifted().data.model_dump() | {"alarm_id": "alarm-1", "cluster": cluster}
    state.apply(desk.say("drift.detected", **told))
    for n in range(12):
        data = desk.completion(n).data
        changes = {
            "completion_id": f"cmpl-{n}", "completed_at": data.completed_at + timedelta(seconds=n),
            "messages": ({"role": "user", "content": f"Question {n}? " + "x" * 300},), "customer": f"kim-{n}",
            "role": "canary" if n % 2 else "production", "model_id": f"desk-{n % 2}",
        }  # fmt: skip
        data = type(data).model_validate(data.model_dump() | changes)
        completions.add([Kept(data, Position("inference.completed", 0, n))], {})


@pytest.fixture
def review(ask: Any) -> Any:
    async def asked(path: str = "", status: int = 200, **query: Any) -> Any:
        answer = await ask(f"{PLACE}{path}", {"desk"}, asker=Role.REVIEWER, **query)
        assert answer.status_code == status, answer.text
        return answer.json()

    return asked


async def test_pages_follow_each_other_newest_first(review: Any):
    first = await review(limit=5)
    assert [one["completion_id"] for one in first["items"]] == [f"cmpl-{n}" for n in (11, 10, 9, 8, 7)]
    assert first["total"] == 12
    assert len(first["items"][0]["question"]) == 200
    assert "messages" not in first["items"][0]
    last = await review(limit=7, after=first["next"])
    assert [one["completion_id"] for one in last["items"]] == [f"cmpl-{n}" for n in range(6, -1, -1)]
    assert last["next"] is None


async def test_a_search_names_words_role_model_and_time(review: Any, desk: Any):
    at = (desk.completion(0).data.completed_at + timedelta(seconds=10)).isoformat()
    for query, found in (
        ({"q": '"question 3"'}, [3]), ({"role": "canary", "q": "question"}, [11, 9, 7, 5, 3, 1]),
        ({"model": "desk-1", "since": at}, [11]), ({"q": ""}, list(range(11, -1, -1))),
        ({"format": "unknown", "since": at}, [11, 10]), ({"format": "empty"}, []),
    ):  # fmt: skip
        items = (await review(**query))["items"]
        assert [one["completion_id"] for one in items] == [f"cmpl-{n}" for n in found], query


@pytest.mark.parametrize(
    "query",
    [{"latency": "fast"}, {"latency": -1}, {"latency": "nan"}, {"role": "king"}, {"since": "yesterday"},
     {"after": "x"}, {"q": "x" * 201}],
    ids=str,
)  # fmt: skip
async def test_what_no_search_can_mean_is_refused_by_its_name(review: Any, query: dict[str, Any]):
    refusal = (await review(status=422, **query))["error"]
    assert next(iter(query)) in refusal["param"]


async def test_one_is_named_by_its_id_or_a_beginning_or_latest(review: Any):
    shown = await review("/cmpl-1")
    assert (shown["completion_id"], shown["alarms"], shown["labels"]) == ("cmpl-1", [], ["alarm-1"])
    assert shown["messages"][0]["content"].startswith("Question 1?")
    assert shown["customer"] == "kim-1"
    latest = await review("/latest")
    assert (latest["completion_id"], latest["alarms"]) == ("cmpl-11", ["alarm-1"])
    for name, status in (("cmpl-99", 404), ("cmpl-", 404), ("%25", 404), ("chatcmpl", 404)):
        assert "completion_id" in (await review(f"/{name}", status))["error"]["param"]


async def test_nobody_but_a_reviewer_of_the_project_reads_texts(ask: Any):
    for asker, projects in ((Role.VIEWER, {"desk"}), (Role.OPERATOR, {"desk"}), (Role.REVIEWER, {"shop"})):
        for path in (PLACE, f"{PLACE}/cmpl-1"):
            answer = await ask(path, projects, asker=asker)
            assert (answer.status_code, "Question" in answer.text) == (403, False)


async def test_while_people_compare_answers_nothing_says_whose_they_are(
    review: Any, state: Any, desk: Any, store: Any
):
    assert (await review("/cmpl-1"))["model_id"] == "desk-1"
    state.apply(await desk.stored_pairs(store))
    (item,) = (await review(q="question 1", limit=1, since="2026-01-01T00:00:11Z"))["items"]
    for told in (item, await review("/cmpl-1")):
        assert (told["model_id"], told["role"], told["shadow_of"]) == (None, None, None)
    for query in ({"role": "canary"}, {"model": "desk-1"}):
        refusal = (await review(status=409, **query))["error"]
        assert refusal["param"] == next(iter(query))


async def test_an_erased_completion_is_not_found(review: Any, completions: Completions, desk: Any):
    asked = Erasure(
        project="desk", customer="kim-3", until=desk.completion(0).data.completed_at.replace(year=2030)
    )
    completions.erase([asked])
    assert "cmpl-3" in (await review("/cmpl-3", 404))["error"]["message"]
    assert (await review())["total"] == 11


async def test_a_file_that_is_not_open_is_told(review: Any, completions: Completions):
    completions.close()
    for path in ("", "/cmpl-1"):
        assert "cannot be searched" in (await review(path, 503))["error"]["message"]


async def test_the_client_searches_and_shows(door: Any, state: Any, completions: Completions):
    add_completions(door.web, completions)
    door.guarded()
    door.roles = frozenset({Role.REVIEWER})
    client = door.client()
    page = await client.completions.list("desk", q="question", role="canary", model="desk-1", limit=1)
    assert ([one.completion_id for one in page.items], page.total) == (["cmpl-11"], 6)
    assert (await client.completions.show("desk", "cmpl-11")).alarms == ("alarm-1",)


@pytest.fixture
def reviewer(door: Any, state: Any, log: Any, completions: Completions) -> Any:
    add_choosing(door.web, state, Actions(log, applied=state.apply), completions)
    door.guarded()
    door.roles = frozenset({Role.REVIEWER})
    return door


async def test_a_person_asks_for_labels_once_and_is_told_what_became_of_it(
    reviewer: Any, state: Any, desk: Any, log: Any
):
    client = reviewer.client()
    told = await client.completions.label("desk", ["cmpl-2", "cmpl-1"])
    again = await client.completions.label("desk", ["cmpl-1", "cmpl-2", "cmpl-1"])
    assert (told.request_id, told.command_id) == (again.request_id, again.command_id)
    sent = log.events[0].data
    assert [(one.completion_id, one.partition, one.offset) for one in sent.completions] == [
        ("cmpl-1", 0, 1), ("cmpl-2", 0, 2),
    ]  # fmt: skip
    assert sent.principal.name == "ann"
    assert (await client.commands.show("desk", told.command_id)).state == "waiting"
    request = desk.say(
        "labels.requested", log.events[0], request_id=told.request_id, alarm_id="chosen-1", asked_by="ann",
        dataset_id="ds-1", wanted=2, completion_ids=("cmpl-1", "cmpl-2"), prompts="prompts.json",
    )  # fmt: skip
    state.apply(request)
    shown = await client.commands.show("desk", told.command_id)
    assert (shown.state, shown.led_to, shown.action) == ("done", told.request_id, "label")
    assert [one.data.asked_by for one in state.projects["desk"].labels.waiting] == [None]


@pytest.mark.parametrize(
    ("chosen", "status"), [([], 422), (["cmpl-1", "cmpl-99"], 404), (["cmpl-1"] * 201, 422), ("cmpl-1", 422)]
)
async def test_what_cannot_be_labelled_is_refused_and_nothing_is_asked(
    reviewer: Any, log: Any, chosen: Any, status: int
):
    answer = await reviewer.send("POST", "projects/desk/labels", {"completions": chosen})
    assert (answer.status_code, log.events) == (status, [])
    assert "completions" in answer.json()["error"]["param"]
    reviewer.roles = frozenset({Role.VIEWER})
    answer = await reviewer.send("POST", "projects/desk/labels", {"completions": ["cmpl-1"]})
    assert answer.status_code == 403

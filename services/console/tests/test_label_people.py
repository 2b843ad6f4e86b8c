"""Requests for labels: their cost, who is to answer, second opinions, topics, prompts out of scope."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tunewheel_console.state import Rest
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.events.turns import AlarmAnswer, LabelCluster, TurnDecided
from tunewheel_contracts.formats.drift_spec import LabelsSpec
from tunewheel_contracts.principal import Principal, Trust
from tunewheel_contracts.topics import PROJECT_DECLARED
from tunewheel_runtime.identity.roles import Caller, Grant, Role
from tunewheel_runtime.store import ObjectStore

from . import conftest
from .test_labelling import PLACE, REQUEST, SCHEMA, published, put

BELL, HORN = {"category": "battery"}, {"category": "solar"}
ANN = Caller(Principal(name="ann"), (Grant(frozenset({Role.REVIEWER}), frozenset({"desk"})),))
TOPICS = (
    LabelCluster(cluster_id="c-1", completion_ids=("cmpl-0", "cmpl-1", "cmpl-2"), size=30),
    LabelCluster(cluster_id="c-2", completion_ids=("cmpl-3",), size=1),
)


@pytest.fixture
async def labels(console: Any, desk: Any, store: ObjectStore, request: pytest.FixtureRequest) -> Any:
    """A console with four prompts to be answered, under the ``drift.labels`` of the test's parameter."""
    declared = desk.declared(output_schema=SCHEMA, label_field="category")
    drift = declared.data.spec.drift.model_copy(update={"labels": LabelsSpec(**request.param)})
    told = declared.data.spec.model_copy(update={"drift": drift})
    asked = await desk.stored_labels(store, prompts=4)
    grown = asked.data.model_copy(update={"clusters": TOPICS, "questions": 100})
    console.log.events += [desk.say("project.declared", spec=told), desk.event(grown)]
    await console.refresh()
    return console


def under(**labels: Any) -> Any:
    return pytest.mark.parametrize("labels", [labels], indirect=True)


async def told(labels: Any, person: str = "ann") -> dict[str, Any]:
    async with labels.client(person) as client:
        return (await client.get(REQUEST)).json()


async def say(labels: Any, person: str, number: int, output: Any) -> dict[str, Any]:
    body = {"out_of_scope": True} if output is None else {"output": output}
    async with labels.client(person) as client:
        return (await put(client, number, **body)).json()


@under(seconds=90, dollars=0.5)
async def test_a_request_says_what_answers_take_and_which_traffic_they_are_about(
    labels: Any,
) -> None:
    async with labels.client("ann") as client:
        (listed,) = (await client.get(PLACE)).json()["requests"]
    assert (listed["wanted"], listed["minutes"], listed["dollars"], listed["share"]) == (2, 3.0, 1.0, 0.31)
    after = await say(labels, "ann", 1, HORN)
    assert (after["minutes"], after["dollars"]) == (1.5, 0.5)
    await say(labels, "ann", 2, HORN)
    assert (await say(labels, "ann", 3, HORN))["minutes"] == 0


@under()
async def test_out_of_scope_is_an_example_without_an_answer(labels: Any) -> None:
    await say(labels, "ann", 1, None)
    (event,) = published(labels.log)
    assert (event.data.example_id, event.data.output, event.data.validated_by) == ("cmpl-0", "", "ann")
    assert event.data.attributes == {"label_request": "alarm-1", "out_of_scope": "true"}


@under()
async def test_what_experts_said_elsewhere_counts_and_the_newest_holds(labels: Any, desk: Any) -> None:
    def record(output: str | None, completion: str) -> Any:
        named = {
            "record_id": f"rec-{completion}-{output is None}".lower(),
            "source_id": completion,
            "source_event_id": "e",
        }
        told = {"project": "desk", "kind": "example", "input": "q", "group": "g", "trust": Trust.EXPERT}
        return desk.event(RecordIngested.model_validate(named | told | {"output": output}))

    labels.state.apply(record('{"category": "solar"}', "cmpl-0"))
    labels.state.apply(record(None, "cmpl-1"))
    labels.state.apply(record(None, "cmpl-0"))
    states = [one["state"] for one in (await told(labels))["items"]]
    assert states == ["out_of_scope", "out_of_scope", "open", "open"]


@under(assignees=("ann", "bob"))
async def test_everybody_gets_their_own_prompts_first_and_then_the_others(labels: Any) -> None:
    found = await told(labels, "bob")
    assert [one["people"] for one in found["items"]] == [["ann"], ["bob"], ["ann"], ["bob"]]
    assert found["next"] == 2
    assert (await say(labels, "bob", 2, HORN))["next"] == 4
    assert (await say(labels, "bob", 4, HORN))["next"] == 1
    assert (await told(labels, "eve"))["next"] == 1


@under(second_opinion=True, assignees=("ann", "bob", "eve"), seconds=30)
async def test_an_answer_that_needs_a_second_opinion_counts_once_two_people_agree(labels: Any) -> None:
    found = await told(labels)
    assert [one["people"] for one in found["items"]][:2] == [["ann", "bob"], ["bob", "eve"]]
    assert found["minutes"] == 2.0
    assert (await say(labels, "ann", 1, HORN))["answered"] == 0
    assert (await say(labels, "ann", 1, HORN))["answered"] == 0, "the same person twice is one opinion"
    assert published(labels.log) == []
    assert (await told(labels))["items"][0]["opinions"] == 1
    assert (await told(labels))["next"] != 1, "nobody is asked twice"
    assert (await say(labels, "bob", 1, HORN | {"reply": "other words"}))["answered"] == 1
    (event,) = published(labels.log)
    assert (event.data.output["category"], event.data.validated_by) == ("solar", "bob")


@pytest.mark.parametrize(
    ("labels", "people"),
    [
        ({"second_opinion": True}, "ann bob eve"),
        ({"second_opinion": True, "assignees": ("ann", "bob")}, "ann bob"),
    ],
    indirect=["labels"],
)
async def test_a_prompt_on_which_nobody_agrees_is_left_out_until_somebody_does(
    labels: Any, people: str
) -> None:
    said = dict(zip(people.split(), (HORN, BELL, None), strict=False))
    for person, output in said.items():
        assert published(labels.log) == []
        await say(labels, person, 1, output)
    (event,) = published(labels.log)
    assert event.data.attributes["out_of_scope"] == "true"
    assert (await told(labels))["items"][0]["state"] == "out_of_scope"
    assert (await say(labels, "dan", 1, HORN))["answered"] == 1
    assert published(labels.log)[-1].data.output == HORN


@under(second_opinion=True)
async def test_an_old_export_replaces_no_newer_opinion_of_the_same_person(
    labels: Any, store: ObjectStore
) -> None:
    old, new = "2026-03-01T10:00:00Z", "2026-03-02T10:00:00+01:00"
    for person, at, output, status in (
        ("ann", new, HORN, 200), ("ann", old, BELL, 409), ("ann", old, None, 409), ("ann", new, HORN, 200),
        ("bob", old, BELL, 200),
    ):  # fmt: skip
        said = {"out_of_scope": True} if output is None else {"output": output}
        async with labels.client(person) as client:
            answer = await client.put(f"{REQUEST}/items/1/answer", json=said | {"answered_at": at})
        assert answer.status_code == status, answer.text
        assert status == 200 or answer.json()["error"]["param"] == "answered_at"
    assert published(labels.log) == [], "one opinion each, and they differ"
    await say(labels, "ann", 1, BELL)
    assert [event.data.output for event in published(labels.log)] == [BELL], "what is said now is newer"


@under(second_opinion=True)
async def test_of_two_different_labels_a_third_decides(labels: Any) -> None:
    await say(labels, "ann", 1, HORN)
    assert (await say(labels, "bob", 1, BELL))["answered"] == 0
    assert (await say(labels, "eve", 1, BELL))["answered"] == 1
    assert [event.data.output for event in published(labels.log)] == [BELL]


@under(second_opinion=True)
async def test_out_of_scope_needs_two_people_too_and_a_changed_mind_replaces_the_first(labels: Any) -> None:
    await say(labels, "ann", 1, HORN)
    await say(labels, "bob", 1, None)
    assert (await say(labels, "ann", 1, None))["out_of_scope"] == 1


@under()
async def test_prompts_of_a_settled_topic_are_not_offered_any_more(labels: Any, desk: Any) -> None:
    waits = AlarmAnswer(
        alarm_id="alarm-1", detector="novelty", follows="collect_labels", labels=1, labels_needed=4,
        lacking={"c-1": 0},
    )  # fmt: skip
    await say(labels, "ann", 1, HORN)
    labels.state.apply(desk.event(TurnDecided(project="desk", step="waits for labels", alarms=(waits,))))
    found = await told(labels)
    assert [one["state"] for one in found["items"]] == ["answered", "settled", "settled", "open"]
    assert (found["next"], [one["lacking"] for one in found["clusters"]]) == (4, [0, None])
    assert (await say(labels, "ann", 2, HORN))["answered"] == 2


@under()
async def test_settled_prompts_are_offered_while_nothing_is_open_and_answers_are_wanted(
    labels: Any, desk: Any
) -> None:
    waits = AlarmAnswer(
        alarm_id="alarm-1", detector="novelty", follows="collect_labels", labels=1, labels_needed=3,
        lacking={"c-1": 0},
    )  # fmt: skip
    await say(labels, "ann", 1, HORN)
    labels.state.apply(desk.event(TurnDecided(project="desk", step="waits for labels", alarms=(waits,))))
    assert (await say(labels, "ann", 4, HORN))["next"] == 2, "two of three wanted answers are there"
    assert [one["state"] for one in (await told(labels))["items"]] == ["answered", "open", "open", "answered"]
    assert (await say(labels, "ann", 2, HORN))["next"] is None


@under(seconds=90)
async def test_the_requests_of_a_removed_project_are_listed_without_their_cost(labels: Any) -> None:
    labels.state.forget(PROJECT_DECLARED, "desk")
    async with labels.client("ann") as client:
        (listed,) = (await client.get(PLACE)).json()["requests"]
    assert (listed["wanted"], listed["dollars"]) == (2, 0)


@under(second_opinion=True)
async def test_nobody_is_asked_twice_who_comes_from_an_issuer_either(
    labels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = Principal(name="ann", issuer="https://login.example")
    monkeypatch.setattr(f"{conftest.__name__}.Principal", lambda **_: far)
    assert (await say(labels, "ann", 1, HORN))["next"] == 2
    assert (await told(labels))["next"] == 2


@under(assignees=("bob", "ann"))
async def test_assignees_are_named_with_or_without_their_issuer(
    labels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = Principal(name="ann", issuer="https://login.example")
    monkeypatch.setattr(f"{conftest.__name__}.Principal", lambda **_: far)
    assert (await told(labels))["next"] == 2
    assert (await say(labels, "ann", 2, HORN))["next"] == 4


@under()
async def test_a_project_at_rest_is_opened_in_turns_before_its_prompts_are_shown(labels: Any) -> None:
    projects, opened = labels.state.projects, list[str]()
    projects.resting["desk"] = Rest()
    rested = projects.pop("desk")

    async def open_(name: str) -> None:
        opened.append(name)
        del projects.resting[name]
        projects[name] = rested

    projects.open, projects.fold = open_, lambda name: pytest.fail(f"{name} was folded at once")
    await labels.labelling.open("desk", "alarm-1")
    assert opened == ["desk"]


async def outputs(store: ObjectStore, *found: str) -> None:
    """Let the model have answered the prompts so."""
    kept = json.loads(await store.read("prompts.json") or b"")
    for item, output in zip(kept["items"], found, strict=True):
        item["output"] = output
    await store.replace("prompts.json", json.dumps(kept).encode())


@pytest.mark.parametrize(
    ("found", "order"),
    [
        (('{"category": "battery"}',) * 4, [1, 2, 3, 4]),
        (('{"category": "battery"}', '{"category": "battery"}', '{"category": "solar"}', "{}"), [4, 3, 1, 2]),
        (
            ('{"category": "battery"}', "no JSON", '{"category": "solar"}', '{"category": "roof"}'),
            [2, 4, 1, 3],
        ),
        (("", '{"category": "battery"}', '{"category": "battery"}', "broken"), [4, 1, 2, 3]),
    ],
)
@under()
async def test_prompts_whose_answers_are_likely_wrong_come_first(
    labels: Any, store: ObjectStore, found: tuple[str, ...], order: list[int]
) -> None:
    await outputs(store, *found)
    way, number = list[int](), (await told(labels))["next"]
    async with labels.client("ann") as ann:
        while number not in (None, *way):
            way.append(number)
            number = (await ann.get(f"{REQUEST}/items/{number}")).json()["following"]
    assert way == order


async def together(labels: Any, person: str, number: int, **body: Any) -> Any:
    async with labels.client(person) as client:
        return (await put(client, number, **body)).json()


@under()
async def test_a_topics_questions_are_answered_at_once_but_for_those_taken_out(labels: Any) -> None:
    async with labels.client("ann") as ann:
        beside = (await ann.get(f"{REQUEST}/items/1")).json()["beside"]
        assert (await ann.get(f"{REQUEST}/items/4")).json()["beside"] == []
    assert beside == [{"number": n, "question": f"My roof panel {n - 1} hums."} for n in (2, 3)]
    after = await together(labels, "ann", 1, output=HORN, also=[3, 4, 99, 3])
    assert (after["answered"], after["next"], after["passed_over"]) == (2, 2, [4, 99])
    assert {event.data.example_id: event.data.output for event in published(labels.log)} == {
        "cmpl-0": HORN, "cmpl-2": HORN,
    }  # fmt: skip
    after = await together(labels, "ann", 2, output=HORN, also=[1])
    assert after["passed_over"] == [1], "it has an answer"


@under()
async def test_who_is_too_late_for_one_question_keeps_nobody_from_the_others(labels: Any) -> None:
    labels.log.refusals = 1
    assert "error" in await together(labels, "ann", 1, output=HORN, seen="none"), "she has the question still"
    refused = await together(labels, "bob", 1, output=HORN, seen="none", also=[2, 3])
    assert refused["error"]["param"] == "seen"
    after = await together(labels, "ann", 2, output=HORN, seen="none", also=[3])
    assert (after["answered"], after["passed_over"]) == (2, [])


@under()
async def test_a_topic_is_out_of_scope_at_once_and_a_wrong_form_keeps_nothing(labels: Any) -> None:
    refused = await together(labels, "ann", 1, output={"category": "roof"}, also=[2, 3])
    assert (refused["error"]["param"], published(labels.log)) == ("output.category", [])
    assert (await together(labels, "ann", 1, out_of_scope=True, also=[2, 3]))["out_of_scope"] == 3


@under(second_opinion=True)
async def test_together_is_one_opinion_on_each(labels: Any) -> None:
    await together(labels, "ann", 1, output=HORN, also=[2, 3])
    assert published(labels.log) == []
    async with labels.client("ann") as ann:
        assert (await ann.get(f"{REQUEST}/items/1")).json()["beside"] == [], "nobody is asked twice"
    assert (await together(labels, "bob", 2, output=HORN, also=[1, 3]))["answered"] == 3

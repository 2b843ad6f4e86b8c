"""Pairs of a trial's answers, over the API's routes: blind, once each, until the trial is over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.evaluation import AnswersCompared
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.store import ObjectStore

PLACE = "/v1/projects/desk/reviews"
PAIRS = f"{PLACE}/compare-1"


@pytest.fixture
async def trial(console: Any, desk: Any, log: Any, store: ObjectStore) -> Any:
    await log.publish(await desk.stored_pairs(store))
    await console.refresh()
    return console


@pytest.fixture
async def ann(trial: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with trial.client("ann") as client:
        yield client


async def shown(client: httpx.AsyncClient, *numbers: int) -> list[dict[str, Any]]:
    return [(await client.get(f"{PAIRS}/items/{number}")).json() for number in numbers]


async def choose(client: httpx.AsyncClient, number: int, choice: str, **more: Any) -> httpx.Response:
    return await client.put(f"{PAIRS}/items/{number}/answer", json={"choice": choice} | more)


def judged(desk: Any, **changes: Any) -> Any:
    told = {"stage": "shadow", "generation": 3, "verdict": "passed", "requests": 9, "candidate": {}}
    return desk.of_model("rollout.judged", champion={}, reasons=(), **(told | changes))


async def test_a_choice_is_told_by_what_it_means_for_the_candidate(ann: httpx.AsyncClient, log: Any):
    for item in await shown(ann, 1, 2, 3):
        assert {item["left"][:3], item["right"][:3]} == {"new", "old"}
        side = next(name for name in ("left", "right") if item[name].startswith("new"))
        assert (await choose(ann, item["number"], side)).status_code == 200
    request, answers = log.events[1], log.events[2:]
    assert {event.data.preference for event in answers} == {"better"}
    assert {event.data.completion_id for event in answers} == {"cmpl-0", "cmpl-1", "cmpl-2"}
    data = answers[0].data
    assert (data.reviewer, data.principal.name, data.judge) == ("ann", "ann", None)
    assert (data.request_id, data.model_id, answers[0].causation_id) == ("compare-1", "desk-1", request.id)
    progress = (await ann.get(PAIRS)).json()
    assert (progress["answered"], progress["next"], progress["takes_verdict"]) == (3, None, False)
    assert "revealed" not in progress


async def test_one_person_s_first_answer_to_a_pair_is_enough(trial: Any, ann: httpx.AsyncClient, log: Any):
    assert (await choose(ann, 1, "left")).status_code == 200
    assert (await choose(ann, 1, "left")).status_code == 200
    assert len(log.events) == 3, "the same again is nothing"
    again = await choose(ann, 1, "same")
    assert (again.status_code, again.json()["error"]["message"]) == (
        409,
        "item: 1 was compared by you; the first answer counts",
    )
    (question,) = await shown(ann, 1)
    async with trial.client("bob") as bob:
        waiting = [item["messages"] for item in await shown(bob, 1, 2, 3)]
        assert question["messages"] in waiting
        assert (await bob.get(PAIRS)).json()["answered"] == 1
        for _ in range(2):
            await choose(bob, (await bob.get(PAIRS)).json()["next"], "same")
        assert (await bob.get(PAIRS)).json()["next"] is None
    assert (await ann.get(PAIRS)).json()["next"] is None


async def test_a_click_that_could_not_count_is_refused_with_the_reason(
    trial: Any, ann: httpx.AsyncClient, desk: Any, log: Any, store: ObjectStore
):
    before = await shown(ann, 1, 2, 3)
    async with trial.client("bob") as bob:
        for _ in range(2):
            await choose(bob, (await bob.get(PAIRS)).json()["next"], "same")
    left = (await ann.get(PAIRS)).json()["next"]
    theirs = next(number for number in (1, 2, 3) if number != left)
    late = await choose(ann, theirs, "left")
    assert late.status_code == 409
    assert "somebody else" in late.json()["error"]["message"]

    await log.publish(await desk.stored_pairs(store, revision=2, for_people=4))
    again = type(trial)(log, store)
    await again.refresh()
    async with again.client("ann") as client:
        assert [one | {"of": 3} for one in await shown(client, 1, 2, 3)] == before
        assert (await client.get(PAIRS)).json()["items"] == 4
        clicks = [await choose(client, number, "left") for number in (4, 5, 6)]
        assert sorted(one.status_code for one in clicks) == [200, 410, 410]
        assert "judge" in next(one for one in clicks if one.status_code == 410).json()["error"]["message"]
        await choose(client, left, "left")
        assert (await client.get(PAIRS)).json()["next"] is None


async def test_a_judge_s_comparison_leaves_a_pair_to_people(trial: Any, ann: httpx.AsyncClient):
    told = {"project": "desk", "request_id": "compare-1", "model_id": "desk-1", "completion_id": "cmpl-0"}
    trial.state.apply(new_event(AnswersCompared(**told, preference="same", judge="a" * 64), source="/test"))
    assert (await ann.get(PAIRS)).json()["answered"] == 0


async def test_later_pairs_move_no_earlier_one_and_an_erasure_leaves_a_gap(
    trial: Any, ann: httpx.AsyncClient, desk: Any, log: Any, store: ObjectStore
):
    before = await shown(ann, 1, 2, 3)
    await log.publish(await desk.stored_pairs(store, revision=2))
    again = type(trial)(log, store)
    await again.refresh()
    async with again.client("ann") as client:
        assert [one | {"of": 3} for one in await shown(client, 1, 2, 3)] == before
        assert (await client.get(PAIRS)).json()["items"] == 6
        await desk.stored_pairs(store, erased=[0, 1, 2])
        assert (await client.get(f"{PAIRS}/items/1")).status_code == 410
        assert (await client.get(PAIRS)).json()["next"] == 4
        await desk.stored_pairs(store, revision=2, erased=[3, 4, 5])
        assert (await client.get(PAIRS)).status_code == 410


@pytest.mark.parametrize(
    ("body", "field"), [({"reasons": ["tone"]}, "reasons"), ({"corrected": "so"}, "reasons")]
)
async def test_a_trial_takes_the_choice_alone(
    ann: httpx.AsyncClient, body: dict[str, Any], field: str, log: Any
):
    refused = await choose(ann, 1, "left", **body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, field)
    refused = await ann.post(f"{PAIRS}/submit", json={"verdict": "approved"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (409, "review_id")
    assert len(log.events) == 2


async def test_a_verdict_on_the_trial_ends_it_and_tells_the_sides(
    trial: Any, ann: httpx.AsyncClient, desk: Any
):
    await choose(ann, 1, "same")
    trial.state.apply(judged(desk, model_id="desk-9"))
    trial.state.apply(judged(desk, stage="canary"))
    assert (await ann.get(PAIRS)).json()["state"] == "waiting"
    trial.state.apply(judged(desk))
    told = (await ann.get(PAIRS)).json()
    assert (told["state"], told["outcome"]) == ("ended", "passed")
    assert (told["revealed"]["candidate"], told["revealed"]["other"]) == ("desk-1", "desk-0")
    assert told["revealed"]["preferences"] == {"same": 1}
    assert (await choose(ann, 2, "same")).status_code == 409


async def test_a_model_that_is_taken_out_waits_for_nobody(trial: Any, ann: httpx.AsyncClient, desk: Any):
    assert trial.state.projects["desk"].reviews.by_id["compare-1"].waits_for("ann")
    trial.state.apply(desk.of_model(
        "model.promoted", from_stage="shadow", to_stage="retired", cause="c", reason="r"
    ))  # fmt: skip
    listed = {one["review_id"]: one for one in (await ann.get(PLACE)).json()["reviews"]}
    assert listed["compare-1"]["outcome"] == "cancelled: the model was retired"


async def test_only_reviewers_compare(trial: Any):
    async with trial.client("vic", Role.VIEWER) as vic:
        assert (await vic.get(PAIRS)).status_code == 403

"""Recipes that are tried: what is asked for, and what is refused at the door."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.training import SweepProgressed
from tunewheel_contracts.formats.sweep import SweepState, TriedRun
from tunewheel_testing.datasets import put_dataset

SWEEPS = "projects/desk/sweeps"
ROW = {
    "example_id": "ex-1", "label": "bell", "group": "g", "trust": "expert", "record_ids": ["rec-1"],
    "messages": [{"role": "user", "content": "Does it ring?"}, {"role": "assistant", "content": "bell"}],
}  # fmt: skip


def order(*recipes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"dataset_id": "latest", "recipes": recipes, "request": "r1", **fields}


@pytest.fixture
async def version(state: Any, desk: Any, store: Any) -> Any:
    """A version whose manifest is in the store."""
    _, ref = await put_dataset(store, desk.spec(), dataset_id=desk.dataset_id, train=[ROW], holdout=[ROW])
    event = desk.say("dataset.versioned", **desk.versioned().data.model_dump() | {"manifest": ref})
    state.apply(event)
    return event


@pytest.mark.usefixtures("version")
async def test_a_sweep_is_asked_for_once_in_the_callers_name(state: Any, door: Any, ask: Any):
    asked = order({"rank": 8}, {"rank": 4}, method="halving", max_hours=2)
    first, again = [await door.send("POST", SWEEPS, asked) for _ in range(2)]
    assert (first.status_code, first.json()) == (202, again.json())
    event = door.log.events[-1]
    assert (event.data.dataset_id, event.data.principal.name) == ("ds-1", "ann")
    assert [dict(one) for one in event.data.recipes] == [{"rank": 8}, {"rank": 4}]
    other = await door.send("POST", SWEEPS, asked | {"request": "r2"})
    assert other.json()["sweep_id"] != first.json()["sweep_id"]
    (newest, waiting) = (await ask("/projects/desk/sweeps")).json()["items"]
    assert (waiting["sweep_id"], waiting["state"], waiting["by"]) == (
        first.json()["sweep_id"], "waiting", "ann"
    )  # fmt: skip
    assert newest["sweep_id"] == other.json()["sweep_id"]


@pytest.mark.usefixtures("version")
@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (order({"lerning_rate": 1}), "train.lerning_rate"),
        (order({"rank": 0}), "train.rank"),
        (order({"rank": 8}, {"rank": 8}), "recipes"),
        (order({"seed": 1}, {"seed": 2}), "train.seed"),
        (order({"rank": 8}, dataset_id="ds-none"), "dataset_id"),
        (order({"rank": 8}, max_hours=0), "max_hours"),
        (order(), "recipes"),
    ],
)
async def test_a_wrong_recipe_is_refused_by_name(door: Any, asked: dict[str, Any], param: str):
    answer = await door.send("POST", SWEEPS, asked)
    assert answer.status_code in (404, 422)
    assert answer.json()["error"]["param"] == param
    assert door.log.events == []


@pytest.mark.usefixtures("version")
async def test_a_sweep_is_cancelled_like_a_run_and_is_none(state: Any, door: Any, ask: Any):
    sweep_id = (await door.send("POST", SWEEPS, order({"rank": 8}))).json()["sweep_id"]
    cancel = f"projects/desk/runs/{sweep_id}/cancel"
    answer = await door.send("POST", cancel)
    assert (answer.status_code, answer.json()["run_id"]) == (202, sweep_id)
    assert (await ask("/projects/desk/runs")).json()["items"] == []
    told = {
        "project": "desk", "sweep_id": sweep_id, "dataset_id": "ds-1", "max_hours": 1.0,
        "runs": (TriedRun(run_id=f"{sweep_id}-1", changes={"rank": 8}),),
    }  # fmt: skip
    ended = SweepProgressed(state=SweepState.CANCELLED, measured=1, **told)
    before = SweepProgressed(state=SweepState.TRAINING, measured=1, **told)
    asked = door.log.events[0]
    for one in (ended, before):  # each topic has an order of its own, but a late reader may find any
        state.apply(new_event(one, source="/train", cause=asked))
    found = (await ask(f"/projects/desk/sweeps/{sweep_id}")).json()
    assert (found["state"], found["runs"][0]["changes"]) == ("cancelled", {"rank": 8})
    assert (await door.send("POST", cancel)).status_code == 409
    command = (await door.send("GET", f"projects/desk/commands/{asked.id}")).json()
    assert (command["state"], command["led_to"]) == ("done", sweep_id)

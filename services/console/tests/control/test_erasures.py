"""Erasures are asked for once, and tell how far each holder is and what is left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tunewheel_contracts.erasures import HOLDERS
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.identity.roles import Role

ERASURES = "projects/desk/erasures"
ORDER = {"customer": "customer-7", "requested_by": "m.okafor", "reason": "letter"}


@pytest.fixture(autouse=True)
def declared(state: Any, desk: Any) -> None:
    state.apply(desk.declared())


def proof(desk: Any, erasure_id: str, holder: str, **more: Any) -> Any:
    told = {
        "holder": holder,
        "erased_by": holder,
        "requested_by": "m",
        "records": 2,
        "customer": "customer-7",
    }
    at = "2026-01-02T00:00:00Z"
    return desk.say("erasure.completed", erasure_id=erasure_id, completed_at=at, **told, **more)


async def test_an_erasure_goes_out_in_the_callers_name_and_waits_for_every_holder(door: Any):
    answer = await door.send("POST", ERASURES, ORDER)
    (event,) = door.log.events
    told = answer.json()
    assert (answer.status_code, told["command_id"]) == (202, event.id)
    assert (event.data.customer, event.data.principal.name) == ("customer-7", "ann")
    found = (await door.send("GET", f"{ERASURES}/{told['erasure_id']}")).json()
    assert (found["state"], found["missing"], found["requested_by"]) == ("waiting", [*HOLDERS], "m.okafor")
    assert [one["done"] for one in found["holders"]] == [False] * len(HOLDERS)


async def test_an_erasure_tells_what_still_holds_the_data(state: Any, desk: Any, door: Any):
    order = {"source_id": "T-1", "requested_by": "m", "request": "letter-9"}
    assert (await door.send("POST", ERASURES, order)).json()["erasure_id"] == "letter-9"
    held = {"dataset_ids": ("ds-1", "ds-2"), "deleted_dataset_ids": ("ds-2",), "model_ids": ("desk-0",)}
    for holder in HOLDERS:
        state.apply(proof(desk, "letter-9", holder, **(held if holder == "curate" else {})))
    state.apply(desk.trained())  # on ds-1, after the erasure
    found = (await door.send("GET", f"{ERASURES}/latest")).json()
    assert (found["state"], found["missing"]) == ("done", [])
    assert (found["dataset_ids"], found["deleted_dataset_ids"]) == (["ds-1"], ["ds-2"])
    assert found["model_ids"] == ["desk-0", desk.model_id()]
    assert {one["records"] for one in found["holders"]} == {2}


async def test_a_request_under_an_earlier_name_is_that_request(door: Any):
    named = ORDER | {"request": "letter-1"}
    first, again = [(await door.send("POST", ERASURES, named)).json() for _ in range(2)]
    assert (first, len(door.log.events)) == (again, 1)
    other = await door.send("POST", ERASURES, named | {"customer": "customer-8"})
    assert (other.status_code, other.json()["error"]["param"]) == (409, "request")
    assert (await door.send("GET", ERASURES)).json()["total"] == 1


@pytest.mark.parametrize(
    ("order", "param"),
    [
        ({"requested_by": "m"}, "customer"),
        ({"requested_by": "m", "customer": "C", "source_id": "T"}, "customer"),
        ({"customer": "C"}, "requested_by"),
    ],
)
async def test_an_erasure_of_nothing_or_of_two_things_is_refused(
    door: Any, order: dict[str, str], param: str
):
    answer = await door.send("POST", ERASURES, order)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
    assert not door.log.events


async def test_only_operators_read_who_was_erased(door: Any):
    door.roles = frozenset({Role.VIEWER, Role.REVIEWER, Role.PUBLISHER})
    for method, path in (("GET", ERASURES), ("GET", f"{ERASURES}/x"), ("POST", ERASURES)):
        assert (await door.send(method, path, ORDER if method == "POST" else None)).status_code == 403


async def test_an_erasure_without_a_broker_is_not_kept(door: Any):
    door.log.away = True
    assert (await door.send("POST", ERASURES, ORDER)).status_code == 503
    assert (await door.send("GET", ERASURES)).json()["total"] == 0


@pytest.mark.parametrize("first", ["copy", "letter"])
async def test_a_copy_under_the_same_id_that_is_refused_does_not_refuse_the_real_one(
    state: Any, desk: Any, door: Any, first: str
):
    """Nobody signs a request for erasure, so that whoever may write to the topic can copy its id."""
    told = (await door.send("POST", ERASURES, ORDER)).json()
    (real,) = door.log.events
    copy = replace(real, data=real.data.model_copy(update={"principal": Principal(name="mallory")}))
    steps = [lambda: state.apply(copy), lambda: state.refuse_command(letter(copy), copy)]
    for step in steps if first == "copy" else reversed(steps):
        step()
    path = f"projects/desk/commands/{told['command_id']}"
    assert (await door.send("GET", path)).json()["state"] == "waiting"
    state.refuse_command(letter(real), real)
    assert (await door.send("GET", path)).json()["state"] == "refused"


def letter(event: Any) -> Undecoded:
    record = event.to_kafka()
    headers = record.headers | {"dlq_service": b"curate", "dlq_field": b"principal", "dlq_reason": b"x"}
    return Undecoded(Position("erasure.requested.dlq", 0, 1), record.key, record.value, headers, 1)

"""Reviewers judge records that wait."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.formats.quarantine import Quarantine, QuarantinedRecord, quarantine_path
from tunewheel_runtime.identity.roles import Role

PLACE = "projects/desk/quarantine"


def record(name: str, reason: str) -> QuarantinedRecord:
    return QuarantinedRecord(
        record_id=name, reason=reason, evidence="found", kind="ticket", trust="unverified", input="How?"
    )


@pytest.fixture(autouse=True)
async def listed(state: Any, desk: Any, door: Any) -> None:
    state.apply(desk.declared())
    door.roles = frozenset({Role.REVIEWER})
    rows = (record("rec-1", "flood"), record("rec-2", "flood"), record("rec-3", "takeover"))
    await door.store.replace(
        quarantine_path("desk"), Quarantine(project="desk", records=rows).model_dump_json().encode()
    )


async def test_the_records_of_a_reason_are_released_each_by_an_event(door: Any, state: Any):
    answer = await door.send("POST", PLACE, {"verdict": "release", "reason": "flood"})
    events = door.log.events
    assert (answer.status_code, answer.json()["records"]) == (202, ["rec-1", "rec-2"])
    assert [(event.data.record_id, event.data.verdict) for event in events] == [
        ("rec-1", "release"), ("rec-2", "release"),
    ]  # fmt: skip
    assert {event.data.principal.name for event in events} == {"ann"}
    for event in events:
        state.apply(event)
    told = (await door.send("GET", PLACE)).json()
    assert [one["state"] for one in told["items"]] == ["released", "released", "waiting"]
    again = await door.send("POST", PLACE, {"verdict": "refuse"})
    assert again.json()["records"] == ["rec-3"]


async def test_a_named_record_is_judged_anew_and_an_unknown_one_judges_nothing(door: Any, state: Any):
    for verdict in ("release", "refuse"):
        await door.send("POST", PLACE, {"verdict": verdict, "records": ["rec-1"]})
    for event in door.log.events:
        state.apply(event)
    told = (await door.send("GET", f"{PLACE}?reason=flood")).json()
    assert [(one["record_id"], one["state"]) for one in told["items"]] == [
        ("rec-1", "refused"), ("rec-2", "waiting"),
    ]  # fmt: skip
    refused = await door.send("POST", PLACE, {"verdict": "release", "records": ["rec-2", "rec-9"]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "records")
    assert len(door.log.events) == 2


async def test_nothing_that_waits_is_told_and_no_publisher_judges(door: Any):
    answer = await door.send("POST", PLACE, {"verdict": "release", "reason": "injection"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "reason")
    door.roles = frozenset({Role.PUBLISHER, Role.OPERATOR})
    assert (await door.send("POST", PLACE, {"verdict": "release"})).status_code == 403

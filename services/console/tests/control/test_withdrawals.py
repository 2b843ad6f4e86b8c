"""Publishers withdraw documents."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_runtime.identity.roles import Role

PLACE = "projects/desk/withdrawals"


@pytest.fixture(autouse=True)
def declared(state: Any, desk: Any) -> None:
    state.apply(desk.declared())


async def test_documents_are_withdrawn_each_by_an_event(door: Any):
    order = {"documents": ["returns.md", "refunds.md", "returns.md"], "reason": "outdated"}
    answer = await door.send("POST", PLACE, order)
    told, events = answer.json(), door.log.events
    assert [event.data.document_id for event in events] == ["returns.md", "refunds.md"]
    assert told["command_ids"] == [event.id for event in events]
    assert (answer.status_code, told["command_id"]) == (202, events[0].id)
    assert {(event.data.reason, event.data.principal.name) for event in events} == {("outdated", "ann")}


async def test_an_id_that_nobody_knows_any_more_is_withdrawn_and_doubted(door: Any):
    order = {"documents": ["retruns.md", "refunds.md", "nothing.md"]}
    told = (await door.send("POST", PLACE, order)).json()
    assert [event.data.document_id for event in door.log.events] == order["documents"]
    slip, other = told["warnings"]
    assert "'retruns.md' is withdrawn" in slip
    assert "did you mean returns.md" in slip
    assert "'nothing.md'" in other


@pytest.mark.parametrize("documents", [[], ["../secrets"], ["/etc/passwd"]])
async def test_what_is_no_document_is_refused(door: Any, documents: list[str]):
    assert (await door.send("POST", PLACE, {"documents": documents})).status_code == 422


async def test_an_operator_alone_withdraws_nothing(door: Any):
    door.roles = frozenset({Role.OPERATOR})
    assert (await door.send("POST", PLACE, {"documents": ["returns.md"]})).status_code == 403

"""What services refused, and how they are asked to handle it again."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_console.control.services import MOST_AGAIN, UNDECLARED
from tunewheel_console.letters import ELSEWHERE, NAMELESS, OWN, Letters
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.identity.roles import Role


def letter(
    offset: int, *, project: str = "desk", at: int = 0, topic: str = "train.control", **more: str
) -> Undecoded:
    headers = {
        "ce_id": f"event-{offset}", "ce_project": project, "dlq_service": "train", "dlq_field": "run_id",
        "dlq_reason": "is missing; add it", "dlq_source_topic": topic, "dlq_source_partition": "0",
        "dlq_source_offset": str(offset), **more,
    }  # fmt: skip
    raw = {name: value.encode() for name, value in headers.items() if value}
    return Undecoded(Position(f"{topic}.dlq", 0, at), None, b"a customer's text", raw, logged_ms=at)


def ticket(offset: int, **more: Any) -> Undecoded:
    return letter(offset, at=100 + offset, topic="ticket.published", dlq_service="ingest", **more)


def name(offset: int) -> str:
    return f"ingest:ticket.published:0:{offset}"


async def test_dead_letters_are_listed_newest_first_without_texts(ask: Any, letters: Letters):
    for n in range(3):
        letters.add(letter(n, at=n, project="shop" if n == 1 else "desk"))
    letters.add(letter(2, at=9))  # a service that was killed writes its last letter again
    answer = await ask("/dead-letters")
    page = answer.json()
    assert [one["offset"] for one in page["items"]] == [2, 1, 0]
    assert (page["total"], page["items"][0]["field"]) == (3, "run_id")
    assert "customer" not in answer.text
    page = (await ask("/dead-letters", project="shop", topic="train.control")).json()
    assert [one["event_id"] for one in page["items"]] == ["event-1"]
    assert not (await ask("/dead-letters", topic="ticket.published")).json()["items"]


@pytest.mark.parametrize("projects", [set[str](), {"desk"}])
async def test_dead_letters_are_told_to_viewers_of_all_projects_alone(ask: Any, projects: set[str]):
    assert (await ask("/dead-letters", projects)).status_code == 403
    assert (await ask("/dead-letters", projects, project="desk")).status_code == 403


async def test_a_letter_without_headers_is_listed_by_its_own_place(ask: Any, letters: Letters):
    letters.add(Undecoded(Position("ticket.published.dlq", 2, 5), None, b"", {}))
    (one,) = (await ask("/dead-letters")).json()["items"]
    assert (one["topic"], one["offset"], one["at"], one["project"]) == ("ticket.published", -1, None, None)


async def again(door: Any, offset: int, **more: Any) -> Any:
    order = {"letter_id": name(offset), **more}
    return await door.send("POST", "/dead-letters/redeliveries", order)


async def test_who_asked_for_a_message_again_is_on_the_log_and_at_its_letter(door: Any, desk: Any):
    door.state.apply(desk.declared())
    for offset in (1, 2):
        door.letters.add(ticket(offset))
    assert (await again(door, 1)).json() == {"letters": [name(1)], "left": 0}
    (event,) = door.log.of("redelivery.requested")
    assert (event.project, event.letter_id, event.topic) == ("desk", name(1), "ticket.published")
    assert (event.partition, event.offset, event.principal.name) == (0, 101, "ann")
    newer, older = (await door.send("GET", "/dead-letters")).json()["items"]
    assert (newer["again_by"], older["again_by"]) == (None, "ann")
    assert (await again(door, 1)).status_code == 202
    assert len(door.log.of("redelivery.requested")) == 1, "a second time is the same event"
    door.roles = frozenset({Role.OPERATOR})
    found = (await door.send("GET", "/audit")).json()["items"]
    (command,) = [one for one in found if one["type"] == "redelivery.requested"]
    assert (command["principal"], command["action"], command["target"]) == ("ann", "handle again", name(1))


async def test_all_that_were_refused_for_one_reason_are_handled_again_once(door: Any, desk: Any):
    door.state.apply(desk.declared())
    for offset in range(4):
        door.letters.add(ticket(offset, dlq_reason="another" if offset == 2 else "full"))
    door.letters.add(ticket(9, dlq_reason="full", project="shop"))  # nobody declared it
    await again(door, 1)
    assert (await again(door, 0, all_like_it=True)).json() == {"letters": [name(0), name(3)], "left": 1}
    assert (await again(door, 0, all_like_it=True)).json() == {"letters": [], "left": 1}
    page = (await door.send("GET", "/dead-letters")).json()["items"]
    assert {one["offset"]: one["alike"] for one in page} == {0: 4, 1: 4, 2: 1, 3: 4, 9: 4}


async def test_a_flood_is_handled_again_in_parts(door: Any, desk: Any):
    door.state.apply(desk.declared())
    for offset in range(MOST_AGAIN + 3):
        door.letters.add(ticket(offset))
    first, second = [(await again(door, 0, all_like_it=True)).json() for _ in range(2)]
    assert (len(first["letters"]), first["left"], len(second["letters"]), second["left"]) == (
        MOST_AGAIN,
        3,
        3,
        0,
    )


FOREIGN = Undecoded(
    Position("ticket.published.dlq", 0, 1), b"", b"", ticket(1, dlq_source_topic="shop.orders").headers
)


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (letter(1, at=1), OWN),
        (ticket(1, project=""), NAMELESS),
        (ticket(1, project="shop"), UNDECLARED),
        (ticket(1, dlq_cut_bytes="9000000"), "letter holds only"),
        (ticket(1, dlq_field="(erased)"), "letter is of a message that was erased"),
        (FOREIGN, ELSEWHERE),
    ],
)
async def test_a_message_that_cannot_be_handled_again_says_why(
    door: Any, desk: Any, refused: Undecoded, why: str
):
    door.state.apply(desk.declared())
    door.letters.add(refused)
    (one,) = (await door.send("GET", "/dead-letters")).json()["items"]
    assert one["not_again"].startswith(why)
    answer = await door.send("POST", "/dead-letters/redeliveries", {"letter_id": one["letter_id"]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (409, "letter_id")
    assert not door.log.events


async def test_an_event_that_is_refused_again_counts_its_tries(door: Any):
    for offset in (1, 5):
        door.letters.add(ticket(offset, ce_id="e-1"))
    assert [one["tries"] for one in (await door.send("GET", "/dead-letters")).json()["items"]] == [2, 2]


async def test_a_message_is_shown_to_operators_of_all_projects_as_it_lies_on_the_log():
    log = {(0, 101): ticket(1)}

    async def read(topic: str, places: Any) -> Any:
        assert topic == "ticket.published.dlq"
        return {place: log[place] for place in places if place in log}

    letters = Letters(read)
    letters.add(ticket(1))
    assert await letters.message_of(name(1)) == b"a customer's text"
    log[0, 101] = ticket(2)  # an erasure has moved it
    assert await letters.message_of(name(1)) is None


@pytest.mark.parametrize("role", [Role.VIEWER, Role.REVIEWER])
async def test_only_operators_read_a_message_or_have_it_handled_again(door: Any, role: Role):
    door.principal, door.roles = Principal(name="vic"), frozenset({role})
    door.letters.add(ticket(1))
    assert (await door.send("GET", f"/dead-letters/{name(1)}")).status_code == 403
    assert (await again(door, 1)).status_code == 403

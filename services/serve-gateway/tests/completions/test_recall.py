from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tunewheel_contracts.event import KafkaRecord, new_event
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_serve_gateway.completions.kept import Kept
from tunewheel_serve_gateway.completions.recall import Forgetting, RecentCompletions

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def asked(number: int = 1, **subject: Any):
    data = ErasureRequested.model_validate(
        {"project": "desk", "erasure_id": f"letter-{number}", "requested_by": "privacy"} | subject
    )
    return new_event(data, source="/test", time=NOON)


def kept(name: str, *, after: timedelta = timedelta(0), **values: Any) -> Kept:
    told: dict[str, Any] = {"project": "desk", "customer": "C-7", "about": name}
    record = KafkaRecord("inference.completed", name.encode(), b"{}")
    at = (NOON + after).timestamp()
    return Kept(completion_id=name, completed_at=at, record=record, **(told | values))


@pytest.mark.parametrize(
    ("one", "goes"),
    [
        (kept("a"), True),
        (kept("a", after=timedelta(seconds=1)), False),
        (kept("a", customer="C-8"), False),
        (kept("a", customer=None), False),
        (kept("a", project="shop"), False),
    ],
)
def test_a_person_is_taken_up_to_the_moment(one: Kept, goes: bool):
    assert Forgetting().apply(asked(customer="C-7"))(one) is goes


def test_a_completion_is_taken_by_its_id_with_its_shadow():
    takes = Forgetting().apply(asked(source_id="c-1"))
    shadow = kept("c-9", about="c-1", customer=None)
    assert [takes(one) for one in (kept("c-1"), shadow, kept("c-2"))] == [True, True, False]


def test_an_erased_completion_is_counted_once_for_the_request_that_erased_it():
    forgetting = Forgetting()
    first, second = asked(1, customer="C-7"), asked(2, source_id="c-2")
    takes = forgetting.apply(first)
    forgetting.apply(second)
    for one in (kept("c-1"), kept("c-1"), kept("c-2", customer=None)):
        takes(one)
        assert forgetting.takes(one)
    assert (forgetting.count(first.id), forgetting.count(second.id)) == (1, 1)
    assert forgetting.count("another") == 0


def test_feedback_cannot_bring_back_what_was_erased():
    recent = RecentCompletions(limit=10, limit_bytes=1 << 20)
    for one in (kept("c-1"), kept("c-2", customer="C-8")):
        recent.remember(one)
    recent.forget(Forgetting().apply(asked(customer="C-7")))
    assert (recent.get("c-1"), len(recent)) == (None, 1)
    assert recent.get("c-2") is not None

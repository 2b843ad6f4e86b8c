from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_curate.records.erasures import erased

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def requested(number: int, **fields: object):
    data = ErasureRequested.model_validate(
        {"project": "shop", "erasure_id": f"letter-{number}", "requested_by": "privacy"} | fields
    )
    return new_event(data, source="/test", time=NOON)


def test_a_person_and_a_source_are_taken_up_to_the_moment(records) -> None:
    fold = Erasures()
    for event in (requested(1, customer="C-1"), requested(2, source_id="T-9"), requested(1, customer="C-1")):
        fold.apply(event)
    assert len(fold.of("shop")) == len(fold.all()) == 2
    rows = records(
        {"group": "C-1", "published_at": NOON},
        {"group": "C-1", "published_at": NOON + MINUTE},
        {"group": "C-1", "published_at": NOON + MINUTE, "occurred_at": NOON - MINUTE},
        {"source_id": "T-9", "published_at": NOON - MINUTE, "occurred_at": NOON + MINUTE},
        {"group": "C-2", "published_at": NOON},
        {"group": "C-1", "published_at": NOON, "project": "other"},
    )
    taken = rows.filter(erased(fold.all()))["record_id"].to_list()
    assert taken == ["rec-0000", "rec-0002", "rec-0003"]


def test_copies_of_an_erased_record_are_taken_whoever_they_name(records) -> None:
    fold = Erasures()
    fold.apply(requested(1, customer="jane"))
    copy = {"record_id": "rec-a", "source_id": "T-1", "published_at": NOON - MINUTE}
    rows = records(
        copy | {"group": "T-1"},
        copy | {"group": "jane", "published_at": NOON},
        copy | {"group": "bob", "published_at": NOON + MINUTE},
        copy | {"group": "bob", "published_at": NOON + MINUTE, "occurred_at": NOON},
        copy | {"group": "T-1", "project": "other"},
        {"source_id": "T-1", "group": "T-1", "published_at": NOON - MINUTE, "project": "other"},
        {"source_id": "T-1", "group": "T-1", "published_at": NOON - MINUTE, "kind": "example"},
        {"source_id": "T-1", "group": "T-1", "published_at": NOON - MINUTE, "title": "named nobody"},
        {"source_id": "T-1", "group": "ann", "published_at": NOON - MINUTE},
        {"group": "T-1", "published_at": NOON - MINUTE},
    )
    for frame in (rows, rows.reverse()):
        taken = frame.filter(erased(fold.all()))
        assert sorted(taken["group"]) == ["T-1", "T-1", "bob", "jane"]
        assert "named nobody" in taken["title"].to_list()


def test_the_moment_may_be_named() -> None:
    fold = Erasures()
    fold.apply(requested(1, customer="C-1", requested_at=NOON - MINUTE))
    assert [erasure.until for erasure in fold.of("shop")] == [NOON - MINUTE]


def test_a_request_that_comes_again_asks_for_what_it_asked_for_first(records) -> None:
    """Sent anew, an event bears its id and a later time; read in another order, the later one comes first."""
    first = requested(1, customer="C-1")
    again = replace(first, time=NOON + 5 * MINUTE)
    for order in ((first, again), (again, first)):
        fold = Erasures()
        for event in order:
            fold.apply(event)
        assert [erasure.until for erasure in fold.of("shop")] == [NOON]
        assert fold.asked_by(again).until == NOON
        rows = records({"group": "C-1", "published_at": NOON + MINUTE})
        assert rows.filter(erased(fold.all())).is_empty()


def test_nothing_is_erased_without_a_request(records) -> None:
    assert records({}, {}).filter(~erased([])).height == 2

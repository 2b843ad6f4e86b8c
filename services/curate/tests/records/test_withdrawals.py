from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.upstream import DocumentWithdrawn
from tunewheel_contracts.withdrawals import Withdrawal, Withdrawals
from tunewheel_curate.records.selection import drop_withdrawn

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def withdrawn(document: str, at: datetime, *, sent: datetime = NOON, project: str = "shop"):
    data = DocumentWithdrawn(project=project, document_id=document, withdrawn_at=at)
    return new_event(data, source="/test", time=sent)


def test_the_latest_withdrawal_of_a_document_counts_in_any_order() -> None:
    events = [(withdrawn("a.md", NOON), 0, 0), (withdrawn("a.md", NOON + MINUTE), 1, 0),
              (withdrawn("b.md", NOON), 0, 1), (withdrawn("a.md", NOON, project="other"), 2, 0)]  # fmt: skip
    orders = [events, events[::-1], [*events, *events]]
    folds = [Withdrawals() for _ in orders]
    for fold, order in zip(folds, orders, strict=True):
        for event, partition, offset in order:
            fold.apply(event, partition, offset)
    assert {str(fold.upto("shop")) for fold in folds} == {str({"0": 2, "1": 1})}
    everything = folds[0].before("shop", folds[0].upto("shop"))
    assert [(w.document_id, w.until) for w in everything] == [("a.md", NOON + MINUTE), ("b.md", NOON)]
    assert all(fold.before("shop", fold.upto("shop")) == everything for fold in folds)
    assert [w.until for w in folds[0].before("shop", {"0": 1})] == [NOON]
    assert folds[0].before("shop", {}) == ()


def test_without_a_moment_the_events_own_time_counts() -> None:
    fold = Withdrawals()
    data = DocumentWithdrawn(project="shop", document_id="a.md")
    fold.apply(new_event(data, source="/test", time=NOON), 0, 0)
    assert fold.before("shop", {"0": 1}) == (Withdrawal(document_id="a.md", until=NOON),)


def document(at: datetime, **more: object) -> dict[str, object]:
    return {"kind": "document", "source_id": "a.md", "output": None, "published_at": at} | more


def test_what_was_published_up_to_the_moment_is_taken_back(records) -> None:
    rows = records(
        document(NOON - MINUTE),
        document(NOON),
        document(NOON + MINUTE),
        document(NOON, source_id="b.md"),
        {"source_id": "a.md", "published_at": NOON},
    )
    stage = drop_withdrawn(rows, [Withdrawal(document_id="a.md", until=NOON)])
    assert stage.dropped["record_id"].to_list() == ["rec-0000", "rec-0001"]
    assert stage.funnel.reasons == {"withdrawn": 2}
    assert stage.kept["record_id"].to_list() == ["rec-0002", "rec-0003", "rec-0004"]
    assert drop_withdrawn(rows, []).kept.height == 5


def test_the_same_words_published_again_come_back(records) -> None:
    rows = records(document(NOON, record_id="rec-a"), document(NOON + MINUTE, record_id="rec-a"))
    stage = drop_withdrawn(rows, [Withdrawal(document_id="a.md", until=NOON)])
    assert stage.kept["published_at"].to_list() == [NOON + MINUTE]
    assert stage.dropped.is_empty()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries=st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 5)), max_size=12), rng=st.randoms())
def test_deliveries_in_any_order_give_the_same_records(deliveries, rng, records) -> None:
    rows = records(
        *(document(NOON + MINUTE * m, source_id=f"{d}.md", record_id=f"rec-{d}") for d, m in deliveries)
    )
    withdrawals = [Withdrawal(document_id=f"{d}.md", until=NOON) for d in range(4)]
    order = list(range(rows.height))
    rng.shuffle(order)
    one, other = drop_withdrawn(rows, withdrawals), drop_withdrawn(rows[order], withdrawals)
    columns = pl.exclude("partition", "offset", "event_id", "source_event_id")
    assert one.kept.select(columns).equals(other.kept.select(columns))
    assert one.dropped.equals(other.dropped)
    assert set(one.kept["record_id"]) == {f"rec-{d}" for d, m in deliveries if m > 0}


def test_a_withdrawal_takes_the_source_of_its_kind_alone(records) -> None:
    rows = records(document(NOON), {"source_id": "a.md", "published_at": NOON})
    stage = drop_withdrawn(rows, [Withdrawal(document_id="a.md", kind="ticket", until=NOON)])
    assert stage.dropped["record_id"].to_list() == ["rec-0001"]


def test_a_ticket_and_a_document_of_one_id_are_withdrawn_apart() -> None:
    fold = Withdrawals()
    for offset, kind in enumerate(("document", "ticket")):
        data = DocumentWithdrawn.model_validate({"project": "shop", "document_id": "a", "kind": kind})
        fold.apply(new_event(data, source="/test", time=NOON + offset * MINUTE), 0, offset)
    assert [(one.kind, one.until) for one in fold.of("shop")] == [
        ("document", NOON),
        ("ticket", NOON + MINUTE),
    ]
    assert not fold.takes("shop", "a", NOON + MINUTE)

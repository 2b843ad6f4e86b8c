from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import RecordIngested, RecordKind
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.judgements import Judged
from tunewheel_contracts.principal import Trust
from tunewheel_curate.pipeline import build
from tunewheel_curate.records.log import rows_of
from tunewheel_curate.records.selection import distinct_records, erased, select_usable
from tunewheel_runtime.service import Delivery, Position

OLD, NEW = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)


def test_copies_of_a_record_count_once_whatever_their_order(records) -> None:
    twice = records({}, {"record_id": "rec-a"}, {"record_id": "rec-a", "published_at": OLD})
    assert distinct_records(twice).equals(distinct_records(twice.reverse()))
    assert distinct_records(twice)["record_id"].to_list() == ["rec-0000", "rec-a"]


@pytest.mark.parametrize("kind", ["ticket", "example"])
def test_the_latest_publication_names_the_customer_and_the_dates(records, kind: str) -> None:
    first = {"record_id": "rec-a", "kind": kind, "source_id": "T", "group": "T", "published_at": OLD}
    mended = first | {"group": "jane", "validated_at": OLD, "occurred_at": OLD, "published_at": NEW}
    for order in ((first, mended), (mended, first)):
        named = distinct_records(records(*order)).row(0, named=True)
        assert (named["group"], named["validated_at"], named["occurred_at"]) == ("jane", OLD, OLD)
        assert named["published_at"] == OLD


def test_tickets_that_are_published_again_with_their_customers_are_split_by_customer(
    records, varied_rows, spec
) -> None:
    rows = [row | {"source_id": f"T-{n}", "group": f"T-{n}"} for n, row in enumerate(varied_rows(60))]
    named = [row | {"group": f"customer-{n % 20}", "published_at": NEW} for n, row in enumerate(rows)]
    first, again = records(*rows), records(*named)
    made = build(pl.concat([first, again.with_columns(pl.col("offset") + 1000)]), spec())
    sides = [set(side["group"]) for side in (made.split.train, made.split.holdout)]
    assert sides[0] | sides[1] == {f"customer-{n}" for n in range(20)}
    assert sides[0].isdisjoint(sides[1])


def test_a_source_that_went_back_to_an_earlier_version_says_that_one(records) -> None:
    first, second, back, again = (datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2, 3, 4))
    frame = records(
        {"record_id": "rec-a", "source_id": "T", "published_at": first},
        {"record_id": "rec-b", "source_id": "T", "published_at": second},
        {"record_id": "rec-a", "source_id": "T", "published_at": back},
        {"record_id": "rec-a", "source_id": "T", "published_at": again},
        {"record_id": "rec-c", "source_id": "U", "published_at": first},
        {"record_id": "rec-c", "source_id": "U", "published_at": again},
    )
    distinct = distinct_records(frame)
    assert distinct.equals(distinct_records(frame.reverse()))
    # what is published again unchanged keeps its time, or every export of everything were another version
    assert dict(distinct.select("record_id", "published_at").iter_rows()) == {
        "rec-a": back, "rec-b": second, "rec-c": first,
    }  # fmt: skip
    assert sorted(select_usable(distinct).kept["record_id"]) == ["rec-a", "rec-c"]


def test_a_history_that_is_published_again_as_a_whole_changes_nothing(records) -> None:
    days = [datetime(2026, 3, day, tzinfo=UTC) for day in range(1, 5)]
    rows = [{"record_id": f"rec-{'ab'[n % 2]}", "source_id": "T", "published_at": day}
            for n, day in enumerate(days)]  # fmt: skip
    for upto in (2, 4):
        assert select_usable(distinct_records(records(*rows[:upto]))).kept["record_id"].to_list() == ["rec-b"]


def test_documents_and_unanswered_records_are_not_used(records) -> None:
    stage = select_usable(records({}, {"kind": "document", "output": None}, {"output": None}))
    assert stage.kept["record_id"].to_list() == ["rec-0000"]
    assert stage.funnel.reasons == {"document": 1, "no_output": 1}
    assert (stage.funnel.entered, stage.funnel.left) == (3, 1)


def test_the_newest_of_a_source_counts(records) -> None:
    def winner(*rows: dict[str, object]) -> str:
        frame = records(*({"source_id": "T"} | row for row in rows))
        stage = select_usable(frame)
        assert stage.kept.equals(select_usable(frame.reverse()).kept)
        kept = stage.kept.filter(pl.col("instead_of").is_null())["record_id"].to_list()
        assert len(kept) == 1
        return kept[0]

    assert winner({"validated_at": NEW}, {"validated_at": OLD}) == "rec-0000"
    assert winner({"trust": "expert"}, {"trust": "unverified"}) == "rec-0000"
    dated = {"validated_at": OLD, "trust": "expert"}, {"validated_at": NEW, "trust": "unverified"}
    assert winner(*dated) == "rec-0000", "a date is only words"
    assert winner({}, {}) == "rec-0001", "published later"
    assert winner({"published_at": OLD}, {"published_at": OLD}) == "rec-0001", "greater id"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"kind": "document", "occurred_at": NEW}, {"kind": "document"}),
        ({"kind": "document"}, {"kind": "document", "occurred_at": OLD}),
        # created_at is all that the second says: every version of the ticket was created then
        ({"validated_at": NEW, "occurred_at": NEW}, {"occurred_at": OLD}),
        ({"occurred_at": NEW}, {"validated_at": OLD, "occurred_at": OLD}),
        ({"kind": "example", "occurred_at": NEW}, {"kind": "example"}),
    ],
)
def test_where_a_version_does_not_say_when_the_later_published_counts(records, first, then) -> None:
    published = ({"published_at": NEW + timedelta(days=day), "source_id": "T"} for day in (1, 2))
    frame = records(*(row | when for row, when in zip((first, then), published, strict=True)))
    for order in (frame, frame.reverse()):
        stage = select_usable(order)
        assert "rec-0001" not in stage.dropped.filter(pl.col("reason") == "replaced")["record_id"]
        assert ("rec-0000", "replaced") in stage.dropped.select("record_id", "reason").rows()


def test_what_others_say_orders_nothing_where_one_of_three_does_not(records) -> None:
    rows = [{"occurred_at": NEW}, {"occurred_at": None}, {"occurred_at": OLD}]
    frame = records(*({"kind": "example", "source_id": "E"} | row for row in rows))
    for order in itertools.permutations(range(3)):
        assert select_usable(frame[list(order)]).kept["record_id"].to_list() == ["rec-0002"]


def test_one_source_id_of_two_kinds_is_two_sources(records) -> None:
    frame = records({"source_id": "X"}, {"source_id": "X", "kind": "example"})
    assert select_usable(frame).kept.height == 2


@pytest.mark.parametrize("kind", [RecordKind.TICKET, RecordKind.EXAMPLE])
@pytest.mark.parametrize("date", ["2099-01-01T00:00:00Z", "2026-02-01T09:00:00"])
def test_a_date_in_the_future_wins_only_until_the_next_version(kind: RecordKind, date: str) -> None:
    deliveries: list[Delivery[RecordIngested]] = []
    for day, said in ((0, date), (1, None)):
        at = OLD + timedelta(days=day)
        dated = datetime.fromisoformat(said) if said else at
        data = RecordIngested(
            project="shop", record_id=f"rec-{day}", kind=kind, source_id="T", source_event_id="e", input="q",
            output="a", group="c", trust=Trust.EXPERT, validated_at=dated, occurred_at=dated,
        )  # fmt: skip
        sent, logged_ms = new_event(data, source="/test", time=at).to_kafka(), int(at.timestamp() * 1000)
        event = Envelope.from_kafka(RecordIngested, sent.value, sent.headers, logged_ms=logged_ms)
        deliveries.append(Delivery(event, Position("record.ingested", 0, day), {}))
    frame = distinct_records(rows_of(deliveries))
    assert select_usable(frame).kept["record_id"].to_list() == ["rec-1"]


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


@pytest.mark.parametrize(
    "attributes", ['{"allowed_groups":"[\\"legal\\"]"}', '{"a":"b","allowed_groups":""}']
)
def test_nothing_is_learnt_from_a_document_that_not_every_caller_may_see(records, attributes: str) -> None:
    public = {"kind": "document", "source_id": "a.md", "record_id": "rec-a", "published_at": OLD}
    restricted = public | {"record_id": "rec-b", "published_at": NEW, "attributes": attributes}
    named = {"kind": "document", "source_id": "b.md", "record_id": "rec-c"}
    named |= {"attributes": '{"note":"allowed_groups: none"}'}
    selected = select_usable(records(public, restricted, named))
    assert dict(selected.dropped.select("record_id", "reason").iter_rows()) == {
        "rec-a": "replaced", "rec-b": "restricted", "rec-c": "document",
    }  # fmt: skip


ANSWERS = {"source_id": "T", "trust": "unverified"}


@pytest.mark.parametrize(
    ("rows", "waits"),
    [
        (({"trust": "expert"}, {"trust": "unverified"}), True),
        (({"trust": "expert", "principal": "ann"}, {"trust": "corrected", "principal": "ann"}), True),
        (({"principal": "shop"}, {"principal": "mallory"}), True),
        (({"principal": "shop"}, {}), True),
        (({"principal": "shop"}, {"principal": "shop"}), False),
        (({}, {"principal": "shop"}), False),
        (({"principal": "shop"}, {"principal": "ann", "trust": "expert"}), False),
        (({"principal": "shop", "output": None}, {"principal": "agents"}), False),
        (({"principal": "a", "kind": "document"}, {"principal": "b", "kind": "document"}), False),
    ],
)
def test_a_record_of_less_trust_or_of_another_caller_waits_to_replace_a_source(records, rows, waits) -> None:
    frame = records(*(ANSWERS | row for row in rows))
    taking = select_usable(frame).kept.drop_nulls("instead_of")
    assert taking.select("record_id", "instead_of").rows() == ([("rec-0001", "rec-0000")] if waits else [])


def test_a_released_record_replaces_its_source_until_a_newer_one_of_equal_trust_comes(records) -> None:
    rows = [{"source_id": "T"}, {"source_id": "T", "trust": "unverified"}, {"source_id": "T"}]
    judged = Judged(released=("rec-0001",))
    assert select_usable(records(*rows[:2]), judged).kept["record_id"].to_list() == ["rec-0001"]
    assert select_usable(records(*rows), judged).kept["record_id"].to_list() == ["rec-0002"]


def test_a_refused_record_does_not_replace_what_came_before(records) -> None:
    frame = records({"source_id": "T"}, {"source_id": "T"})
    stage = select_usable(frame, Judged(refused=("rec-0001",)))
    assert stage.kept["record_id"].to_list() == ["rec-0000"]
    assert stage.kept["instead_of"].null_count() == 1

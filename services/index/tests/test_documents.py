"""Which version of a document counts, in whatever order and however often its events come."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.events.upstream import DocumentWithdrawn, ErasureRequested
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.withdrawals import Withdrawals
from tunewheel_index.documents import Documents, Version, documents_of, from_frame, to_frame
from tunewheel_index.project import takes_of
from tunewheel_retrieval.building import Document
from tunewheel_retrieval.files import index_id_of

from .records import MINUTE, NOON, record


class Fold:
    """Documents with what was taken back, as the service holds them."""

    def __init__(self) -> None:
        self.withdrawals, self.erasures, self.refused = Withdrawals(), Erasures(), set[str]()
        self.documents = self._documents()
        self._offset = 0

    def tell(self, event: tuple[str, Any, datetime]) -> None:
        kind, data, at = event
        self._offset += 1
        if kind == "record":
            self.documents.apply(data, at)
        elif kind == "withdrawn":
            self.withdrawals.apply(new_event(data, source="/test", time=at), 0, self._offset)
            self.documents.take_back(data.document_id)
        elif kind == "refused":
            self.refused.add(data)
            self.documents.judge(data)
        else:
            self.erasures.apply(new_event(data, source="/test", time=at))
            self.documents.take_back(data.source_id)

    def restart(self) -> None:
        """Go on from the table that a version names, as another process does."""
        known = from_frame(to_frame(self.documents.all()))
        self.documents = self._documents(known)

    def _documents(self, known: Iterable[Version] = ()) -> Documents:
        takes = takes_of("shop", self.withdrawals, self.erasures)
        return Documents(takes, known, refused=self.refused.__contains__)

    @property
    def records(self) -> dict[str, str]:
        return {name: version.record_id for name, version in self.documents.current().items()}

    @property
    def index_id(self) -> str:
        return index_id_of("0" * 64, self.records)


def published(document_id: str, text: str, minute: int, *, dated: int | None = None) -> tuple[str, Any, Any]:
    occurred = None if dated is None else NOON + dated * MINUTE
    return "record", record(document_id, text, occurred_at=occurred), NOON + minute * MINUTE


def withdrawn(document_id: str, minute: int) -> tuple[str, Any, Any]:
    return "withdrawn", DocumentWithdrawn(project="shop", document_id=document_id), NOON + minute * MINUTE


def refused(document_id: str, text: str) -> tuple[str, Any, Any]:
    return "refused", record(document_id, text).record_id, NOON


def erased(document_id: str, minute: int) -> tuple[str, Any, Any]:
    data = ErasureRequested(
        project="shop", erasure_id=f"e-{document_id}-{minute}", source_id=document_id, requested_by="dpo"
    )
    return "erased", data, NOON + minute * MINUTE


NAMES, TEXTS, MINUTES = (
    st.sampled_from(["a.md", "b.md"]),
    st.sampled_from(["one", "two", "three"]),
    st.integers(0, 9),
)
EVENTS = st.lists(
    st.one_of(
        st.builds(published, NAMES, TEXTS, MINUTES, dated=st.none() | MINUTES),
        st.builds(withdrawn, NAMES, MINUTES),
        st.builds(erased, NAMES, MINUTES),
        st.builds(refused, NAMES, TEXTS),
    ),
    max_size=12,
)


@settings(max_examples=400)
@given(events=EVENTS, seed=st.randoms(), cut=st.integers(0, 12))
def test_any_order_any_repetition_and_any_restart_make_the_same_version(events, seed, cut) -> None:
    straight = Fold()
    for event in events:
        straight.tell(event)
    other, shuffled = Fold(), [*events, *events]
    seed.shuffle(shuffled)
    for event in shuffled[:cut]:
        other.tell(event)
    other.restart()
    for event in shuffled[max(0, cut - 3) :]:  # a little of what was known comes again
        other.tell(event)
    for event in [event for event in events if event not in shuffled[max(0, cut - 3) :]]:
        other.tell(event)
    assert other.index_id == straight.index_id


@pytest.mark.parametrize(
    ("events", "counts"),
    [
        ([published("a.md", "one", 0), published("a.md", "two", 1)], "two"),
        ([published("a.md", "two", 1, dated=1), published("a.md", "one", 2, dated=0)], "two"),
        ([published("a.md", "two", 1, dated=5), published("a.md", "one", 2)], "one"),
        ([published("a.md", "one", 0), published("a.md", "two", 1), published("a.md", "one", 2)], "one"),
        ([published("a.md", "one", 0), published("a.md", "two", 2), withdrawn("a.md", 1)], "two"),
        ([published("a.md", "one", 0), published("a.md", "two", 1), withdrawn("a.md", 1)], None),
        ([published("a.md", "one", 0), withdrawn("a.md", 1), published("a.md", "one", 2)], "one"),
        ([published("a.md", "one", 0), erased("a.md", 0)], None),
        ([published("a.md", "one", 3, dated=0), erased("a.md", 1)], None),
        ([published("a.md", "one", 0), erased("a.md", 1), published("a.md", "two", 2)], "two"),
        ([published("a.md", "one", 0), erased("b.md", 1)], "one"),
    ],
)
def test_the_newest_that_nobody_took_back_counts(events, counts: str | None) -> None:
    for order in (events, events[::-1]):
        fold = Fold()
        for event in order:
            fold.tell(event)
        expected = {} if counts is None else {"a.md": record("a.md", counts).record_id}
        assert fold.records == expected
        assert set(fold.documents.texts) >= set(expected.values())


def test_only_texts_that_count_and_are_news_are_held() -> None:
    documents = Documents(lambda _: False)
    assert documents.apply(record("a.md", "one"), NOON)
    assert documents.apply(record("a.md", "two"), NOON + MINUTE)
    assert [told.input for told in documents.texts.values()] == ["two"]
    documents.texts.clear()
    assert not documents.apply(record("a.md", "two"), NOON + MINUTE)
    assert not documents.texts
    assert not documents.apply(record("a.md", "two"), NOON + MINUTE, again=True)
    assert [told.input for told in documents.texts.values()] == ["two"]


def test_what_was_taken_back_is_forgotten() -> None:
    fold = Fold()
    for event in (published("a.md", "one", 0), published("b.md", "one", 0), erased("a.md", 1)):
        fold.tell(event)
    assert fold.documents.forgotten == {"a.md": 1}
    assert [version.document_id for version in fold.documents.all()] == ["b.md"]
    fold.tell(published("a.md", "one", 0))
    assert fold.records.keys() == {"b.md"}
    assert len(fold.documents.texts) == 1


def test_what_was_taken_back_since_a_table_was_written_is_forgotten_when_it_is_read() -> None:
    fold = Fold()
    fold.tell(published("a.md", "one", 0))
    known = fold.documents.all()
    fold.tell(erased("a.md", 1))
    again = Documents(fold.documents.takes, known)
    assert (again.current(), again.all(), again.forgotten) == ({}, [], {"a.md": 1})


def test_an_event_costs_the_document_that_it_names_however_many_others_there_are() -> None:
    asked: list[str] = []

    def takes(version: Version) -> bool:
        asked.append(version.document_id)
        return False

    documents = Documents(takes)
    for number in range(1_000):
        documents.apply(record(f"{number}.md", "one"), NOON)
    asked.clear()
    documents.apply(record("7.md", "two"), NOON + MINUTE)
    documents.take_back("8.md")
    documents.take_back("unknown.md")
    assert len(documents.current()) == 1_000
    assert asked == ["7.md", "8.md"]


@pytest.mark.parametrize("date", ["2062-01-01T00:00:00Z", "2026-03-01T23:59:00"])
def test_a_document_dated_in_the_future_is_superseded_by_the_next_publication(date: str) -> None:
    fold = Fold()
    for minute, text, said in ((0, "one", date), (1, "two", None), (2, "three", None)):
        at = NOON + minute * MINUTE
        occurred = datetime.fromisoformat(said) if said else at
        sent = new_event(record("a.md", text, occurred_at=occurred), source="/test", time=at).to_kafka()
        logged_ms = int(at.timestamp() * 1000)
        event = Envelope.from_kafka(RecordIngested, sent.value, sent.headers, logged_ms=logged_ms)
        fold.tell(("record", event.data, event.time))
        assert fold.records == {"a.md": event.data.record_id}


SECTIONS = (
    DocumentSection(path=("Handbook", "Ask anna@example.com"), text="Ring  twice.\n\n\n\nThen wait."),
    DocumentSection(path=("Lockers",), text="Write to anna@example.com."),
    DocumentSection(path=("Lockers",), text="   "),
    DocumentSection(
        path=("Lockers",), kind="code", text="open()", language="python", summary="Ask bob@example.com."
    ),
)


def made(policy: PiiPolicy, *, secret: str = "", **changes: object) -> Document:
    told = record("a.md", "unused", sections=SECTIONS, **changes)
    version = Version(document_id="a.md", record_id=told.record_id, group="a.md", published_at=NOON)
    (document,) = documents_of([(version, told)], policy, secret=secret)
    return document


def texts(document: Document) -> str:
    return "\n".join(f"{document.title}\n{one.heading}\n{one.text}" for one in document.sections or ())


def test_personal_data_is_in_no_text_heading_or_title() -> None:
    document = made(PiiPolicy(), title="Anna is anna@example.com")
    assert document.title == "<PERSON> is <EMAIL_ADDRESS>"
    assert made(PiiPolicy(names=False), title="Anna is here").title == "Anna is here"
    assert [one.path for one in document.sections or ()] == [
        ("Handbook", "Ask <EMAIL_ADDRESS>"),
        ("Lockers",),
    ]
    assert "example.com" not in texts(document)
    assert "Ring  twice.\n\nThen wait." in texts(document)
    assert "```python\nopen()\n```" in texts(document)


def test_a_policy_can_keep_reject_and_give_stand_ins() -> None:
    assert "anna@example.com" in texts(made(PiiPolicy(action="keep")))
    rejecting = made(PiiPolicy(action="reject"))
    assert [one.text for one in rejecting.sections or ()] == ["```python\nopen()\n```"]
    titled = made(PiiPolicy(action="reject"), title="anna@example.com")
    assert (titled.sections, titled.left_out, titled.title) == ([], "pii", "")
    one, other = (texts(made(PiiPolicy(action="pseudonymise"), secret=key * 16)) for key in "ab")
    assert "<EMAIL_ADDRESS_" in one
    assert one != other


@pytest.mark.parametrize(("text", "pieces"), [("All of it.", 1), ("   ", 0)])
def test_a_document_without_sections_is_one_piece_or_none(text: str, pieces: int) -> None:
    told = record("a.md", text, title="")
    version = Version(document_id="a.md", record_id=told.record_id, group="a.md", published_at=NOON)
    (document,) = documents_of([(version, told)], PiiPolicy())
    assert (document.title, len(document.sections or ()), document.left_out) == ("a.md", pieces, None)

"""What upstream systems may write: no bytes make a handler raise anything but a refusal."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_contracts import topics
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.events.upstream import (
    DocumentPublished,
    ExamplePublished,
    FeedbackReceived,
    ProjectDeclared,
    TicketPublished,
)
from tunewheel_contracts.formats.source_spec import SourceSpec
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.topics import TopicSpec
from tunewheel_ingest.documents import Documents
from tunewheel_ingest.door.intake import Receipt
from tunewheel_ingest.handlers import LOWERED_SECONDS, made, register
from tunewheel_ingest.parsing.document import ParsedDocument, Unreadable
from tunewheel_ingest.parsing.formats.text import parse_plain
from tunewheel_ingest.parsing.process import ParserProcess
from tunewheel_ingest.records import document_record, lowering
from tunewheel_ingest.sources.topics import as_published
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.adapters import artifact

NOW_MS = int(datetime(2026, 7, 1, tzinfo=UTC).timestamp() * 1000)


class Desk:
    """The part of a service that the handlers are registered at; every project is declared."""

    spec = ProjectSpec.model_validate(
        {
            "project": "desk", "base_model": "m", "task": {"system_prompt": "Answer."},
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
        }
    )  # fmt: skip

    def __init__(self) -> None:
        self.store = ObjectStore("memory://")
        self.handlers: dict[str, Any] = {}
        self.applied: Callable[[Envelope[Any]], None]
        self.warnings: dict[str, str | None] = {}
        self.health = self

    def on(self, topic: TopicSpec, **_: Any) -> Callable[[Any], Any]:
        return lambda handler: self.handlers.setdefault(topic.name, handler)

    on_each = on

    def replay(self, _: Any, apply: Callable[[Envelope[Any]], None]) -> Desk:
        self.applied = apply
        return self

    def withhold(self, *_: Any) -> None: ...

    async def refresh(self) -> None: ...

    async def fresh(self, project: str) -> Envelope[ProjectDeclared]:
        return new_event(ProjectDeclared(project=project, spec=self.spec), source="/test")

    def warn(self, name: str, text: str | None, *, seconds: float | None = None) -> None:
        assert seconds == LOWERED_SECONDS, "the warning ends by itself"
        self.warnings[name] = text

    def new(self, data: Any, *, cause: Envelope[Any]) -> Envelope[Any]:
        return new_event(data, source="/test", cause=cause)


class NoParser(ParserProcess):
    """Refuses what a process with limits would read."""

    def __init__(self) -> None: ...

    async def parse(self, *_: Any, **__: Any) -> ParsedDocument:
        raise Unreadable("is no readable document")


EXAMPLES = Path(__file__).parents[3] / "contracts" / "examples"
TOPICS = ("ticket.published", "document.published", "example.published", "feedback.received")
BY_NAME = {topic.name: topic for topic in topics.TOPICS}
TEXTS = st.one_of(
    st.text(st.characters(codec=None), max_size=8),
    st.sampled_from(["", " ", "\x00", "\ud800", "\u0958" * 9, "# \n", "---\na: b\n---", "|a|\n|-|", "1e999"]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


async def handle(topic: str, value: bytes | None, headers: dict[str, bytes]) -> None:
    """Do what the runtime does with one record of ``topic``."""
    desk: Any = Desk()
    documents = Documents(desk.store, NoParser(), max_bytes=1 << 20)
    register(desk, desk, documents)
    spec = BY_NAME[topic]
    with contextlib.suppress(InvalidEvent, TransientError):
        event = Envelope.from_kafka(spec.event, value, headers, logged_ms=NOW_MS)
        if topic == "erasure.requested":
            desk.applied(event)
        elif (made := await desk.handlers[topic](event)) is not None:
            record = made.to_kafka()
            try:
                Envelope.from_kafka(RecordIngested, record.value, record.headers, logged_ms=NOW_MS)
            except InvalidEvent as error:
                raise AssertionError(f"curate would refuse the record: {error}") from error


@st.composite
def mutated(draw: st.DrawFn, topic: str) -> tuple[bytes, dict[str, bytes]]:
    """A valid event of ``topic`` in which some values, or bytes, are others."""
    file = draw(st.sampled_from(sorted((EXAMPLES / topic / "valid").glob("*.json"))))
    spec, data = BY_NAME[topic], json.loads(file.read_text("utf-8"))
    record = new_event(spec.event.model_validate(data), source="/test").to_kafka()
    for _ in range(draw(st.integers(1, 3))):
        place = data
        while True:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not place[key] or not isinstance(place[key], dict | list) or draw(st.booleans()):
                break
            place = place[key]
        place[key] = draw(st.one_of(JSON, TEXTS, st.just(place[key])))
    value = json.dumps(data, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    headers = record.headers | draw(
        st.dictionaries(st.sampled_from(sorted(record.headers)), st.binary(max_size=12), max_size=2)
    )
    return value, headers


@pytest.mark.parametrize("topic", [*TOPICS, "erasure.requested"])
def test_no_mutated_event_makes_a_handler_raise_anything_but_a_refusal(topic: str) -> None:
    @settings(max_examples=60)
    @given(mutated(topic))
    def check(record: tuple[bytes, dict[str, bytes]]) -> None:
        asyncio.run(handle(topic, *record))

    check()


@settings(max_examples=60)
@given(
    st.sampled_from(TOPICS),
    st.none() | st.binary(max_size=40) | JSON.map(lambda data: json.dumps(data).encode()),
    st.dictionaries(
        st.sampled_from(["ce_id", "ce_type", "ce_time", "ce_project", "x"]), st.binary(max_size=9)
    ),
)
def test_no_bytes_make_a_handler_raise_anything_but_a_refusal(
    topic: str, value: bytes | None, headers: dict[str, bytes]
) -> None:
    asyncio.run(handle(topic, value, headers))


GROWS = "\u0958" * 600_000
"""A text within the contract's limit, which Unicode's NFC makes twice as long."""
TURN = {"role": "user", "content": GROWS}


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (DocumentPublished(project="desk", document_id="a.md", content=GROWS), "content"),
        (
            DocumentPublished(project="desk", document_id="a.md", content=f"# A\n\n{GROWS}\n\n# B\n\nb"),
            "content",
        ),
        (
            DocumentPublished(project="desk", document_id="a.txt", media_type="text/plain", content=GROWS),
            "content",
        ),
        (TicketPublished(project="desk", ticket_id="T", body=GROWS), "input"),
        (TicketPublished(project="desk", ticket_id="T", body="b", answer=GROWS), "output"),
        (TicketPublished(project="desk", ticket_id="T", body="b", thread=(TURN,)), "history.0.content"),
        (ExamplePublished(project="desk", example_id="E", input=GROWS, output="b"), "input"),
        (
            ExamplePublished(project="desk", example_id="E", input="b", output="b", rejected_output=GROWS),
            "rejected_output",
        ),
        (
            FeedbackReceived(
                project="desk", completion_id="C", feedback_id="F", rating="up", messages=(TURN,), output="b"
            ),
            "input",
        ),
    ],
)
async def test_a_text_that_normalising_makes_too_long_is_refused_by_its_field(event: Any, field: str) -> None:
    desk: Any = Desk()
    register(desk, desk, Documents(desk.store, NoParser(), max_bytes=1 << 20))
    with pytest.raises(InvalidEvent) as refusal:
        await desk.handlers[event.type](new_event(event, source="/test"))
    assert refusal.value.field == field
    assert GROWS[:9] not in refusal.value.reason


@pytest.mark.parametrize(("file", "field"), [(None, "content"), (artifact("a.pdf"), "file")])
async def test_a_document_of_which_the_log_takes_no_record_is_refused_by_the_field_of_its_text(
    file: Any, field: str
) -> None:
    text = {"content": "\u9234" * 1_000_000} if file is None else {"file": file}
    data = DocumentPublished(project="desk", document_id="a.txt", media_type="text/plain", **text)
    event = new_event(data, source="/test")
    record = document_record(event, parse_plain("\u9234" * 1_000_000))
    with pytest.raises(InvalidEvent, match="publish it in parts") as refusal:
        made(record, event)
    assert refusal.value.field == field


async def test_a_project_is_told_whose_validated_answers_count_as_unverified() -> None:
    desk: Any = Desk()
    register(desk, desk, Documents(desk.store, NoParser(), max_bytes=1 << 20))
    said = {"project": "desk", "answer": "a", "body": "b", "validated_by": "eve"}
    for name, authority in (("T-1", "expert"), ("T-2", None)):
        ticket = TicketPublished.model_validate({**said, "ticket_id": name, "authority": authority})
        await desk.handlers["ticket.published"](new_event(ticket, source="/test"))
        assert (desk.warnings != {}) == (authority is None)
    (warning,) = desk.warnings.values()
    assert "dataset.trust of project desk" in warning


async def test_the_answers_of_a_source_are_lowered_with_the_advice_to_change_the_source() -> None:
    desk: Any = Desk()
    register(desk, desk, Documents(desk.store, NoParser(), max_bytes=1 << 20))
    source = SourceSpec(name="crm", kind="ticket", map={"ticket_id": "id"})
    ticket = TicketPublished(project="desk", ticket_id="T", body="b", answer="a", validated_by="eve")
    await desk.handlers["ticket.published"](as_published(ticket, source))
    (warning,) = desk.warnings.values()
    assert "trust: expert in the source desk/crm" in warning
    assert [*desk.warnings] == [lowering("desk/crm")], "a change of the source takes it back"
    receipt = Receipt()
    receipt.accept([as_published(ticket, source)])
    assert receipt.lowered is not None
    assert "trust: expert in the source desk/crm" in receipt.lowered.reason

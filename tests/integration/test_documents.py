"""Documents as files, from the door to their record; what is taken back; what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.upstream import (
    DocumentPublished,
    ErasureRequested,
    ExamplePublished,
    FeedbackReceived,
    TicketPublished,
)
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.document import DOCX
from tunewheel_contracts.identity import content_id
from tunewheel_ingest.main import make_app
from tunewheel_ingest.settings import Settings
from tunewheel_runtime.service import Service
from tunewheel_testing.specs import declared

from .bus import Bus, running, until

pytestmark = pytest.mark.integration

FILES = Path(__file__).resolve().parents[2] / "services" / "ingest" / "tests" / "files"
PYTHON = 'def due(order):\n    """Return what is due."""\n    return 0.0\n'


def ingest(kafka: str, tmp_path: Path, **settings: Any) -> Service:
    url = (tmp_path / "store").as_uri()
    return make_app(Settings(bootstrap_servers=kafka, store_url=url, **settings))


def door(service: Service) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.doors.http_port}", timeout=60)


async def test_files_become_records_with_sections_and_pages(kafka: str, tmp_path: Path, project: str) -> None:
    service = ingest(kafka, tmp_path)
    async with Bus(kafka) as bus, running(service), door(service) as client:
        await bus.publish(declared(project))
        for name in ("trail-2.pdf", "trail-2.docx"):
            query = {"project": project, "document_id": f"manuals/{name}"}
            content = (FILES / name).read_bytes()
            answer = await client.post("/v1/documents/files", params=query, content=content)
            assert answer.status_code == 202, answer.text
        code = {"project": project, "document_id": "refund.py", "content": PYTHON}
        await client.post("/v1/documents", json=code | {"media_type": "text/x-python"})
        found = await bus.collect(topics.RECORD_INGESTED, 3, where=lambda e: e.project == project)
    records = {event.data.source_id: event.data for event in found}
    pdf, docx, python = (records[n] for n in ("manuals/trail-2.pdf", "manuals/trail-2.docx", "refund.py"))
    assert (pdf.title, pdf.attributes) == (
        "Trail 2 Manual",
        {"pages": "3", "media_type": "application/pdf"},
    )
    assert {(s.path[-1], s.page) for s in pdf.sections} == {("Battery", 1), ("Bell", 2)}
    assert [s.kind for s in docx.sections] == ["prose", "table", "code"]
    assert docx.attributes == {"media_type": DOCX}
    assert [(s.name, s.summary, s.first_line) for s in python.sections] == [("due", "Return what is due.", 1)]


async def test_a_document_that_cannot_be_read_is_a_dead_letter_and_the_next_one_is_read(
    kafka: str, tmp_path: Path, project: str
) -> None:
    service = ingest(kafka, tmp_path, max_document_bytes=100_000, parse_memory_mb=256)
    async with Bus(kafka) as bus, running(service), door(service) as client:
        await bus.publish(declared(project))
        bodies = {
            "encrypted.pdf": (FILES / "encrypted.pdf").read_bytes(),
            "bomb.pdf": (FILES / "bomb.pdf").read_bytes(),  # two gigabytes of zeros, deflated three times
            "lies.pdf": b"<html>",
            "scripts.html": b"<script>x()</script><h1>T</h1><p>kept",
        }
        for name, content in bodies.items():
            query = {"project": project, "document_id": name}
            await client.post("/v1/documents/files", params=query, content=content)
        lost = {"path": "documents/nowhere", "sha256": "0" * 64, "size_bytes": 10}
        large = lost | {"size_bytes": 200_000_000}
        for name, file in (("lost.pdf", lost), ("large.pdf", large)):
            data = {"project": project, "document_id": name, "file": file, "media_type": "application/pdf"}
            await bus.publish(new_event(DocumentPublished.model_validate(data), source="/test"))
        too_big = await client.post(
            "/v1/documents/files", params={"project": project, "document_id": "b.pdf"}, content=bytes(200_000)
        )
        assert too_big.status_code == 413
        (record,) = await bus.collect(topics.RECORD_INGESTED, 1, where=lambda e: e.project == project)
        letters = await bus.dead_letters("document.published", 5, about=project)
    assert record.data.input == "# T\n\nkept"
    told = {(letter.field, letter.reason.split(";")[0]) for letter in letters}
    assert told == {
        ("file", "is encrypted"),
        ("file", "is no PDF"),
        ("file", "takes over 256 MiB of memory to read"),
        ("file.path", f"documents/nowhere is not in {service.store.url}"),
        ("file.size_bytes", "has 200000000 bytes, 100000 are allowed"),
    }


async def test_text_too_long_for_the_log_is_a_dead_letter_not_the_end(
    kafka: str, tmp_path: Path, project: str
) -> None:
    async with Bus(kafka) as bus, running(ingest(kafka, tmp_path)):
        await bus.publish(declared(project))
        grown = TicketPublished(project=project, ticket_id="grown", body="\u0958" * 600_000)
        twice = DocumentPublished(project=project, document_id="twice.md", content="\u6f22" * 900_000)
        good = TicketPublished(project=project, ticket_id="good", body="bell")
        await bus.publish(*(new_event(data, source="/test") for data in (grown, twice, good)))
        (record,) = await bus.collect(topics.RECORD_INGESTED, 1, where=lambda e: e.project == project)
        assert record.data.source_id == "good"
        (letter,) = await bus.dead_letters("ticket.published", 1, about=project)
        assert letter.field == "input"
        (letter,) = await bus.dead_letters("document.published", 1, about=project)
        assert "the log takes" in letter.reason


async def test_history_rejected_answers_and_times_reach_the_record(
    kafka: str, tmp_path: Path, project: str
) -> None:
    earlier = ChatMessage(role="user", content="Do you ship to islands?")
    yes = ChatMessage(role="assistant", content="Yes.")
    example = ExamplePublished(
        project=project, example_id="E", messages=(earlier,), input="How long?", output="Four days.",
        rejected_output="No idea.", validated_by="eve", validated_at="2026-03-01T09:30:00Z",
    )  # fmt: skip
    feedback = FeedbackReceived(
        project=project, feedback_id="F", completion_id="C", rating="down", output="No idea.",
        messages=(earlier, yes, ChatMessage(role="user", content="When?")),
        correction="Four days.", submitted_by="ann",
    )  # fmt: skip
    async with Bus(kafka) as bus, running(ingest(kafka, tmp_path)):
        await bus.publish(declared(project))
        sent = [new_event(data, source="/test") for data in (example, feedback)]
        await bus.publish(*sent)
        found = await bus.collect(topics.RECORD_INGESTED, 2, where=lambda e: e.project == project)
    records = {event.data.source_id: event for event in found}
    assert {name: event.time for name, event in records.items()} == {"E": sent[0].time, "C": sent[1].time}
    one, two = records["E"].data, records["C"].data
    assert (one.history, one.rejected_output, one.validated_by) == ((earlier,), "No idea.", "eve")
    assert one.occurred_at == example.validated_at
    assert (two.input, two.output, two.rejected_output) == ("When?", "Four days.", "No idea.")
    assert ([t.content for t in two.history], two.validated_by) == ([earlier.content, "Yes."], "ann")


async def test_an_erasure_deletes_the_files_of_its_source_and_no_others(
    kafka: str, tmp_path: Path, project: str
) -> None:
    service = ingest(kafka, tmp_path)
    async with Bus(kafka) as bus, running(service), door(service) as client:
        await bus.publish(declared(project))
        for name in ("a.pdf", "b.pdf"):
            query = {"project": project, "document_id": name}
            await client.post(
                "/v1/documents/files", params=query, content=(FILES / "trail-2.pdf").read_bytes()
            )
        await bus.collect(topics.RECORD_INGESTED, 2, where=lambda e: e.project == project)
        assert len(list((tmp_path / "store").rglob("doc-*/*"))) == 2
        asked = {"project": project, "erasure_id": "L", "source_id": "a.pdf", "requested_by": "m"}
        assert (await client.post("/v1/erasures", json=asked)).status_code == 202
        unknown = ErasureRequested.model_validate(asked | {"project": "nobody"})
        await bus.publish(new_event(unknown, source="/test"))
        await bus.dead_letters("erasure.requested", 1, about="nobody")
        await until(lambda: len(stored(tmp_path)) == 1)


async def test_a_file_published_after_an_erasure_outlives_the_same_request_sent_again(
    kafka: str, tmp_path: Path, project: str
) -> None:
    service = ingest(kafka, tmp_path)
    async with Bus(kafka) as bus, running(service), door(service) as client:
        await bus.publish(declared(project))

        async def publish(document_id: str) -> None:
            query = {"project": project, "document_id": document_id}
            content = (FILES / "trail-2.pdf").read_bytes()
            assert (
                await client.post("/v1/documents/files", params=query, content=content)
            ).status_code == 202

        async def erase(erasure_id: str, source_id: str) -> None:
            asked = {
                "project": project, "erasure_id": erasure_id, "source_id": source_id, "requested_by": "m",
            }  # fmt: skip
            assert (await client.post("/v1/erasures", json=asked)).status_code == 202

        await publish("a.pdf")
        await erase("L", "a.pdf")
        await until(lambda: stored(tmp_path) == [])
        await publish("a.pdf")
        await publish("b.pdf")
        await erase("L", "a.pdf")  # the same event, at a later time
        await erase("M", "b.pdf")  # handled after it
        await until(lambda: len(stored(tmp_path)) == 1)
        assert stored(tmp_path)[0].parent.name == content_id("doc", "a.pdf")


def stored(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "store").rglob("doc-*/*") if path.is_file()]


async def test_the_door_takes_withdrawals(kafka: str, tmp_path: Path, project: str) -> None:
    service = ingest(kafka, tmp_path)
    async with Bus(kafka) as bus, running(service), door(service) as client:
        await bus.publish(declared(project))
        answer = await client.delete(f"/v1/documents/sops/a.md?project={project}&reason=old")
        assert answer.status_code == 202
        (event,) = await bus.collect(topics.DOCUMENT_WITHDRAWN, 1, where=lambda e: e.project == project)
        assert (event.data.document_id, event.data.reason) == ("sops/a.md", "old")

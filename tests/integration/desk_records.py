"""Forty records as ingest makes them of all that people send: what a version is made of at its fullest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tunewheel_contracts.event import Envelope, UpstreamEvent, new_event
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.events.upstream import (
    DocumentPublished,
    ExamplePublished,
    FeedbackReceived,
    TicketPublished,
)
from tunewheel_ingest.handlers import made
from tunewheel_ingest.parsing.formats.text import parse_markdown
from tunewheel_ingest.records import RECORD_OF, document_record

START = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECTS = ("commuter", "racer", "tandem", "cargo bike", "trailer", "folding bike", "tricycle", "e-bike")
FAULTS = ("is silent", "rings by itself", "fell off on the road")
SOP = """# Bells

Oil the bell of a bicycle once every year, before winter comes.

## Silence

A silent bell goes back to the workshop at +49 30 901820 within two weeks of the ride.

## Answers

Write to bells@example.com, and say which bicycle it is.
"""


def desk_records(project: str) -> list[Envelope[RecordIngested]]:
    """Return records of tickets (some with earlier turns, with personal data, of the same customer, or twice
    nearly the same), validated examples with answers to avoid, corrections, thumbs and two documents, the
    first of which is replaced in the last ten records."""
    told = [_ingested(event, number) for number, event in enumerate(_published(project))]
    assert len(told) == 40
    return told


def general_rows(file: Path) -> Path:
    """Write general instruction data to replay."""
    rows = [
        {"instruction": f"Name {n} rivers that begin with {'abcdefgh'[n % 8]}.", "response": f"River {n}."}
        for n in range(60)
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


def rich_dataset(general: Path) -> dict[str, Any]:
    """Return the part of a spec that makes use of all of it."""
    return {
        "formats": {
            "documents": {"chunks": {"enabled": True, "max_tokens": 128}, "questions": {"enabled": True}}
        },
        "pii": {"action": "pseudonymise"},
        "ratings": True,
        "corrections": "train",
        "replay": {"source": str(general), "share": 0.2},
        "comfortable_examples": 30,
    }


def _ingested(event: UpstreamEvent, number: int) -> Envelope[RecordIngested]:
    """Wrap what ingest makes of ``event``, published ``number`` minutes after the first."""
    envelope = new_event(event, source="/test", time=START + timedelta(minutes=number))
    if isinstance(event, DocumentPublished):
        record = document_record(envelope, parse_markdown(event.content))
    else:
        record = RECORD_OF[type(event)](envelope)
    told = made(record, envelope)
    assert told is not None
    return told


def _published(project: str) -> Iterator[UpstreamEvent]:
    yield DocumentPublished(project=project, document_id="sops/bells.md", content=SOP)
    tickets = list(_tickets(project))
    yield from tickets[:16]
    yield from _examples(project)
    yield from _feedback(project)
    other = "# Horns\n\nHorns are tested on Mondays, by somebody who wears ear plugs and reads the meter."
    yield DocumentPublished(project=project, document_id="sops/horns.md", content=other)
    yield from tickets[16:]
    replaced = SOP.replace("two weeks", "three weeks")
    yield DocumentPublished(project=project, document_id="sops/bells.md", content=replaced)


def _tickets(project: str) -> Iterator[TicketPublished]:
    for number in range(25):
        subject, fault = SUBJECTS[number % 8], FAULTS[number // 8 % 3]
        part = ("bell", "horn")[number % 2]
        body = f"Order {number * 7919}: the {part} of my {subject} {fault}, what now?"
        if number % 5 == 0:
            body += f" Write to rider{number // 10}@example.com or call +49 30 90182{number:02}."
        if number == 24:  # nearly what the third customer asked
            part = "bell"
            body = f"Order {2 * 7919}: the bell of my {SUBJECTS[2]} {FAULTS[0]}, what now, please?"
        earlier = (
            {"role": "user", "content": f"My {subject} is number {number}."},
            {"role": "assistant", "content": "Thank you. What is wrong with it?"},
        )
        yield TicketPublished.model_validate(
            {
                "project": project,
                "ticket_id": f"T-{number}",
                "subject": f"My {part} {number % 22}",
                "body": body,
                "thread": earlier if number % 4 == 1 else (),
                "customer": f"customer-{number // 2}",
                "answer": {"category": part},
                "validated_by": ("eve", "ann")[number % 2],
                "attributes": {"license": "CC0-1.0", "source": "desk"},
            }
        )


def _examples(project: str) -> Iterator[ExamplePublished]:
    for number in range(4):
        part = ("bell", "horn")[number % 2]
        yield ExamplePublished(
            project=project,
            example_id=f"E-{number}",
            input=f"What shall I do with a {part} that froze at {number * 13 + 2} degrees below zero?",
            output={"category": part},
            rejected_output="Throw it away." if number < 3 else None,
            validated_by="eve",
        )


def _feedback(project: str) -> Iterator[FeedbackReceived]:
    for number in range(8):
        part = ("bell", "horn")[number % 2]
        asked = f"Model {number * 104_729}: may the {part} stay on the {SUBJECTS[number]} in the rain?"
        yield FeedbackReceived.model_validate(
            {
                "project": project,
                "feedback_id": f"F-{number}",
                "completion_id": f"completion-{number}",
                "rating": "up" if number == 6 else "down",
                "messages": ({"role": "system", "content": "Be brief."}, {"role": "user", "content": asked}),
                "output": json.dumps({"category": part}) if number == 6 else f"Ask bot{number}@example.com.",
                "correction": {"category": part} if number < 6 else None,
                "submitted_by": "ann",
            }
        )

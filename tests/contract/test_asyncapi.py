"""The AsyncAPI document against others: FastStream's reading of the format, and what the runtime sends."""

from __future__ import annotations

from pathlib import Path

import yaml
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.generation.asyncapi import DEAD_LETTER_HEADERS, FILE
from tunewheel_contracts.generation.catalogue import catalogue_files
from tunewheel_contracts.topics import TOPICS
from tunewheel_runtime.deadletter import Position, Undecoded, dead_letter

ROOT = Path(__file__).resolve().parents[2]


def test_faststream_reads_the_document() -> None:
    body = yaml.safe_load((ROOT / FILE).read_text(encoding="utf-8"))
    for server in body["servers"].values():
        server["pathname"] = "/"  # optional in the specification, not in FastStream's model
    read = ApplicationSchema.model_validate(body)
    assert len(read.channels) >= len(TOPICS)
    assert len(read.operations) > len(read.channels)


def test_a_dead_letter_bears_the_headers_that_are_documented() -> None:
    record = Undecoded(Position("ticket.published", 0, 7), key=None, value=b"?", headers={})
    headers = dead_letter(record, InvalidEvent(field="body", reason="is missing"), service="ingest").headers
    assert set(headers) == set(DEAD_LETTER_HEADERS)
    (catalogue,) = catalogue_files().values()
    assert all(f"`{name}`" in catalogue for name in headers)

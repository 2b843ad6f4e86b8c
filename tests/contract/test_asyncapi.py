"""The AsyncAPI documents against others: FastStream's reading of the format, and what the runtime sends."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.generation.asyncapi import DEAD_LETTER_HEADERS
from tunewheel_contracts.generation.catalogue import catalogue_files
from tunewheel_runtime.deadletter import Position, Undecoded, dead_letter

DOCUMENTS = sorted((Path(__file__).resolve().parents[2] / "contracts" / "asyncapi").glob("*.yaml"))


def test_all_documents_are_seen() -> None:
    assert len(DOCUMENTS) >= 11


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_faststream_reads_the_document(path: Path) -> None:
    body = yaml.safe_load(path.read_text(encoding="utf-8"))
    for server in body["servers"].values():
        server["pathname"] = "/"  # optional in the specification, not in FastStream's model
    ApplicationSchema.model_validate(body)


def test_a_dead_letter_bears_the_headers_that_are_documented() -> None:
    record = Undecoded(Position("ticket.published", 0, 7), key=None, value=b"?", headers={})
    headers = dead_letter(record, InvalidEvent(field="body", reason="is missing"), service="ingest").headers
    assert set(headers) == set(DEAD_LETTER_HEADERS)
    (catalogue,) = catalogue_files().values()
    assert all(f"`{name}`" in catalogue for name in headers)

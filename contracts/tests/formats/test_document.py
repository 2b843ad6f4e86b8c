from __future__ import annotations

import json

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.events.upstream import DocumentPublished
from tunewheel_contracts.formats.document import media_type_of


@pytest.mark.parametrize(
    ("document_id", "media_type"),
    [
        ("sops/Battery.MD", "text/markdown"),
        ("a.pdf", "application/pdf"),
        ("tools/refund.py", "text/x-python"),
        ("tools/refund.rs", "text/x-source"),
        ("photo.png", None),
        ("Makefile", None),
        (".py", None),
    ],
)
def test_the_ending_tells_the_media_type(document_id: str, media_type: str | None) -> None:
    assert media_type_of(document_id) == media_type


@pytest.mark.parametrize(
    "media_type", ["application/vnd.oasis.opendocument.text", "text/x-rst", "message/rfc822"]
)
def test_a_format_that_the_contracts_do_not_list_can_be_published_as_a_file(media_type: str) -> None:
    file = {"path": "documents/desk/a/b", "sha256": "0" * 64, "size_bytes": 1}
    body = {"project": "desk", "document_id": "a.odt", "media_type": media_type, "file": file}
    assert decode_data(DocumentPublished, json.dumps(body).encode()).media_type == media_type


@pytest.mark.parametrize(
    "media_type", ["application/pdf", "message/rfc822", "markdown", "Text/HTML", "text/", ""]
)
def test_a_text_has_a_type_of_texts(media_type: str) -> None:
    body = {"project": "desk", "document_id": "a", "content": "text", "media_type": media_type}
    with pytest.raises(InvalidEvent) as refused:
        decode_data(DocumentPublished, json.dumps(body).encode())
    assert refused.value.field == "media_type"

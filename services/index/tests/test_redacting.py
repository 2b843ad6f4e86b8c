from __future__ import annotations

import pytest
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_index.documents import Version
from tunewheel_index.redacting import documents_of
from tunewheel_retrieval.building import Document

from .records import NOON, record

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
    assert document.title == "Anna is <EMAIL_ADDRESS>"
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

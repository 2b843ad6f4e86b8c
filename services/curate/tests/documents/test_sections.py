from __future__ import annotations

import json

import polars as pl
import pytest
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_curate.documents.examples import read_sections

PIECES = [
    {"path": ["Lockers"], "text": "Press  twice.\n\n\n\n- one\n  - nested", "page": 2},
    {"path": ["Lockers"], "kind": "table", "text": "| a | b |\n|---|---|\n| 1 | anna@example.com |",
     "page": 2},
    {"path": ["Lockers", "Reset"], "kind": "code", "text": "if x:\n    reset()\n", "language": "python"},
    {"path": ["Lockers", "Reset"], "kind": "code", "text": "def a():\n    pass", "name": "a",
     "summary": "Does a.", "first_line": 4, "last_line": 5},
    {"path": ["Lockers", "Reset"], "text": "  \n"},
]  # fmt: skip


def documents(records, *rows) -> pl.DataFrame:
    return records(*({"kind": "document", "output": None, "title": "Handbook"} | row for row in rows))


def test_pieces_below_one_heading_are_one_section(records) -> None:
    frame = documents(records, {"sections": json.dumps(PIECES)})
    stage, sections = read_sections(frame, PiiPolicy())
    assert [section.path for section in sections] == [
        ("Lockers",),
        ("Lockers", "Reset"),
        ("Lockers", "Reset"),
    ]
    first, code, function = sections
    assert first.text == "Press  twice.\n\n- one\n  - nested\n\n| a | b |\n|---|---|\n| 1 | <EMAIL_ADDRESS> |"
    assert code.text == "```python\nif x:\n    reset()\n```"
    assert (first.heading, first.place) == ("Lockers", "Lockers, page 2")
    assert (function.pieces[0].summary, function.place) == ("Does a.", "Lockers > Reset, lines 4-5")
    assert stage.counts == {"EMAIL_ADDRESS": 1}
    assert {section.record_id for section in sections} == {"rec-0000"}


def test_a_section_with_personal_data_can_be_rejected(records) -> None:
    frame = documents(records, {"sections": json.dumps(PIECES)})
    stage, sections = read_sections(frame, PiiPolicy(action="reject"))
    assert stage.funnel.reasons == {"pii": 1}
    assert "example.com" not in "".join(section.text for section in sections)


def function(summary: str) -> dict[str, str]:
    return {
        "sections": json.dumps(
            [{"kind": "code", "text": "def a():\n    pass", "name": "a", "summary": summary}]
        )
    }


@pytest.mark.parametrize(
    ("summary", "told"),
    [
        ("Ask anna@example.com.", "Ask <EMAIL_ADDRESS>."),
        ('{"anna@example.com": "owns it"}', '{"<EMAIL_ADDRESS>": "owns it"}'),
        ("Ends with <|im_end|> here.", "Ends with < |im_end|> here."),
    ],
)
def test_a_summary_is_redacted_and_broken_up_as_its_code_is(records, summary: str, told: str) -> None:
    _, (section,) = read_sections(documents(records, function(summary)), PiiPolicy())
    assert section.pieces[0].summary == told


def test_a_function_whose_summary_holds_personal_data_can_be_rejected(records) -> None:
    frame = documents(records, function("Ask anna@example.com."))
    stage, sections = read_sections(frame, PiiPolicy(action="reject"))
    assert (stage.funnel.reasons, sections) == ({"pii": 1}, [])


def test_a_document_without_sections_is_one_piece(records) -> None:
    _, (section,) = read_sections(documents(records, {"input": "All of it."}), PiiPolicy())
    assert (section.path, section.heading, section.place, section.text) == ((), "", "", "All of it.")


def test_control_signs_in_documents_are_broken_up(records) -> None:
    _, (section,) = read_sections(documents(records, {"input": "a <|im_end|> b"}), PiiPolicy())
    assert section.text == "a < |im_end|> b"


def test_no_documents_have_no_sections(records) -> None:
    stage, sections = read_sections(documents(records), PiiPolicy())
    assert sections == []
    assert stage.funnel.entered == 0

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_ingest.parsing.document import ParsedDocument, Unreadable
from tunewheel_ingest.parsing.pdf import parse_pdf

from .pdfs import MANUAL, Word, encrypted_pdf, make_pdf


def parse(tmp_path: Path, data: bytes) -> ParsedDocument:
    path = tmp_path / "document.pdf"
    path.write_bytes(data)
    return parse_pdf(path)


def test_headings_lists_tables_and_pages_are_kept(tmp_path: Path) -> None:
    parsed = parse(tmp_path, make_pdf(*MANUAL, title="Told"))
    table = "| light | means |\n| --- | --- |\n| red | empty |\n| a\\|b | full |"
    battery = "A battery that stops at 60 % wants one long charge. It is overdischarged otherwise."
    items = "- Plug it in.\n- Wait for a night, or two."
    assert parsed.markdown == (
        f"# Trail 2 Manual\n\n## Battery\n\n{battery}\n\n{items}\n\n{table}\n\n"
        "The rest of the story goes on here.\n\n## Bell\n\nIt rings.\n\n1. One.\n2. Two."
    )
    assert parsed.title == "Trail 2 Manual"
    assert parsed.attributes == {"pages": "3"}
    assert [(s.path, s.kind, s.page, s.text) for s in parsed.sections] == [
        (("Trail 2 Manual", "Battery"), "prose", 1, f"{battery}\n\n{items}"),
        (("Trail 2 Manual", "Battery"), "table", 1, table),
        (("Trail 2 Manual", "Battery"), "prose", 1, "The rest of the story goes on here."),
        (("Trail 2 Manual", "Bell"), "prose", 2, "It rings.\n\n1. One.\n2. Two."),
    ]


def test_without_a_heading_the_metadata_tells_the_title(tmp_path: Path) -> None:
    assert parse(tmp_path, make_pdf([Word("Only text.", 100)], title="Told")).title == "Told"


def test_text_that_repeats_away_from_the_edge_is_kept(tmp_path: Path) -> None:
    pages = [[Word("Warning!", 300), Word(f"text {n} {'x' * n}", 330)] for n in range(4)]
    assert parse(tmp_path, make_pdf(*pages)).markdown.count("Warning!") == 4


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is no PDF"),
        (b"<html>", "is no PDF"),
        (b"%PDF-1.7\ngarbage", "is no readable PDF"),
        (make_pdf([], []), "holds no text on its 2 pages; if it is a scan"),
        (encrypted_pdf(), "is encrypted; publish it decrypted"),
    ],
    ids=["empty", "html", "garbage", "scan", "encrypted"],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(Unreadable, match=re.escape(words)):
        parse(tmp_path, data)


def test_a_pdf_without_its_table_of_objects_is_read_all_the_same(tmp_path: Path) -> None:
    whole = make_pdf([Word("It rings.", 100)])
    cut = whole[: whole.index(b"xref")] + b"trailer\n<< /Root 1 0 R >>\n"
    assert parse(tmp_path, cut).markdown == "It rings."


def test_an_unreadable_font_is_no_text(tmp_path: Path) -> None:
    """Glyphs without characters come out as (cid:N)."""
    cids = "(cid:12)" * 20
    with pytest.raises(Unreadable, match="do not say which characters"):
        parse(tmp_path, make_pdf([Word(cids, 100, 4)]))


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_pdf_is_read_or_refused_never_worse(data: st.DataObject) -> None:
    whole = bytearray(make_pdf(*MANUAL[:1]))
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=20))
    with tempfile.NamedTemporaryFile(suffix=".pdf") as file:
        file.write(whole)
        file.flush()
        with contextlib.suppress(Unreadable):
            assert parse_pdf(Path(file.name)).sections

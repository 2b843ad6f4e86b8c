"""XLSX and PPTX, made by libraries that write them."""

from __future__ import annotations

import io
import zipfile
from datetime import datetime
from pathlib import Path

import pytest
import xlsxwriter
from pptx import Presentation
from pptx.util import Inches
from tunewheel_contracts.formats.document import DOCX, PPTX, XLSX
from tunewheel_ingest.parsing.archives import MAX_ENTRIES, OLE_MAGIC
from tunewheel_ingest.parsing.document import Unreadable
from tunewheel_ingest.parsing.formats import parse_file
from tunewheel_ingest.parsing.formats.pptx import parse_pptx
from tunewheel_ingest.parsing.formats.xlsx import ROWS_OF_TABLE, parse_xlsx


def workbook(path: Path) -> Path:
    book = xlsxwriter.Workbook(str(path))
    sheet = book.add_worksheet("Spare parts")
    rows = [
        ("part", "price", "since"),
        ("bell | left", 3, None),
        (),
        ("light\nrear", 2.5, datetime(2026, 1, 5)),
    ]
    day = book.add_format({"num_format": "yyyy-mm-dd"})
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            sheet.write(number, column, cell, day) if isinstance(cell, datetime) else sheet.write(
                number, column, cell
            )
    book.add_worksheet("Empty")
    hidden = book.add_worksheet("Notes")
    hidden.write(0, 0, "secret")
    hidden.hide()
    long = book.add_worksheet("Long")
    for number in range(ROWS_OF_TABLE * 2 + 1):
        long.write_row(number, 0, [f"row {number}", number])
    book.close()
    return path


def test_a_sheet_becomes_a_table_below_its_name(tmp_path: Path) -> None:
    parsed = parse_xlsx(workbook(tmp_path / "a.xlsx"))
    assert parsed.markdown.split("\n\n")[:2] == [
        "# Spare parts",
        "| part | price | since |\n| --- | --- | --- |\n| bell \\| left | 3 | |\n"
        "| light rear | 2.5 | 2026-01-05 |".replace("3 | |", "3 |  |"),
    ]
    assert {section.path for section in parsed.sections} == {("Spare parts",), ("Long",)}
    assert [section.text.split("\n")[0] for section in parsed.sections[1:]] == ["| row 0 | 0 |"] * 2
    assert "secret" not in parsed.markdown


def deck(path: Path) -> Path:
    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "The bell"
    body = slide.placeholders[1].text_frame
    body.text = "Oil it"
    inner = body.add_paragraph()
    inner.text, inner.level = "once a year", 1
    table = slide.shapes.add_table(2, 2, 0, 0, Inches(2), Inches(1)).table
    for place, text in enumerate(("light", "means", "red", "empty | low")):
        table.cell(place // 2, place % 2).text = text
    slide.notes_slide.notes_text_frame.text = "Say it slowly."
    hidden = deck.slides.add_slide(deck.slide_layouts[5])
    hidden.shapes.title.text = "secret"
    hidden._element.set("show", "0")
    plain = deck.slides.add_slide(deck.slide_layouts[6])
    group = plain.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "In a group"
    deck.save(str(path))
    return path


def test_a_slide_becomes_a_heading_with_its_texts(tmp_path: Path) -> None:
    parsed = parse_pptx(deck(tmp_path / "a.pptx"))
    assert parsed.markdown == (
        "# The bell\n\n- Oil it\n  - once a year\n\n"
        "| light | means |\n| --- | --- |\n| red | empty \\| low |\n\n"
        "Say it slowly.\n\n# Slide 2\n\nIn a group"
    )


def bomb(folder: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{folder}/a.xml", b" " * (30 << 20))
    return packed.getvalue()


def with_dtd(folder: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{folder}/a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')
    return packed.getvalue()


def many(folder: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(MAX_ENTRIES + 1):
            archive.writestr(f"{folder}/{number}", b"")
    return packed.getvalue()


@pytest.mark.parametrize(("media_type", "folder"), [(XLSX, "xl"), (PPTX, "ppt"), (DOCX, "word")])
def test_bombs_and_other_files_are_refused_with_advice(tmp_path: Path, media_type: str, folder: str) -> None:
    file = tmp_path / "a"
    for data, reason in (
        (bomb(folder), "zip bomb"),
        (many(folder), "zip bomb"),
        (with_dtd(folder), "declares a DTD"),
        (with_dtd("other"), "is an archive, but no"),
        (OLE_MAGIC + b"x", "is encrypted"),
        (b"PK nothing", "save it anew"),
    ):
        file.write_bytes(data)
        with pytest.raises(Unreadable, match=reason):
            parse_file(file, media_type, "a")

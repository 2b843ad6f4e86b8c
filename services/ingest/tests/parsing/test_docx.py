from __future__ import annotations

import contextlib
import io
import re
import struct
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_ingest.parsing.archives import MAX_ENTRIES, OLE_MAGIC
from tunewheel_ingest.parsing.document import ParsedDocument, Unreadable
from tunewheel_ingest.parsing.formats.docx import parse_docx

from .docxs import MANUAL, OFFICE, make_docx, merged, paragraph, relations

BILLION_LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'


def parse(tmp_path: Path, data: bytes) -> ParsedDocument:
    path = tmp_path / "document.docx"
    path.write_bytes(data)
    return parse_docx(path)


def test_headings_lists_tables_and_code_are_kept(tmp_path: Path) -> None:
    parsed = parse(tmp_path, make_docx(MANUAL))
    assert parsed.markdown == (
        "# Trail 2\n\n## Battery\n\nOne long charge. \u05e9\u05dc\u05d5\u05dd \U0001f6b2\n\n"
        "- Plug it in.\n- Wait.\n\n"
        "| light | means |\n| --- | --- |\n| red | empty |\n\n```\ncharge()\nwait()\n```"
    )
    assert parsed.title == "Trail 2"
    assert [(s.path, s.kind) for s in parsed.sections] == [
        (("Trail 2", "Battery"), "prose"),
        (("Trail 2", "Battery"), "table"),
        (("Trail 2", "Battery"), "code"),
    ]


def test_merged_cells_leave_every_value_below_its_head(tmp_path: Path) -> None:
    begins, goes_on, wide = '<w:vMerge w:val="restart"/>', "<w:vMerge/>", '<w:gridSpan w:val="2"/>'
    body = merged(
        (("Region", ""), ("Sales", wide)),
        (("EU", begins), ("1", ""), ("2", "")),
        (("", goes_on), ("3", ""), ("4", "")),
    )
    table = "| Region | Sales | |\n| --- | --- | --- |\n| EU | 1 | 2 |\n| EU | 3 | 4 |"
    assert parse(tmp_path, make_docx(body)).markdown == table


def entries(count: int) -> dict[str, bytes]:
    return {f"word/part{n}.bin": b"" for n in range(count)}


def archive(**parts: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in parts.items():
            made.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (bytes, "is no readable DOCX"),
        (lambda: b"PK\x03\x04 not really", "is no readable DOCX"),
        (lambda: OLE_MAGIC + bytes(600), "is encrypted, or of an old format"),
        (lambda: archive(a=b"b"), "is an archive, but no DOCX"),
        (lambda: make_docx("", more={"word/media/bomb.bin": bytes(300 << 20)}), "unpacks to 3145"),
        (lambda: make_docx("", more={"word/media/bomb.bin": bytes(50 << 20)}), "-fold, 200 are allowed"),
        (lambda: make_docx("", more=entries(MAX_ENTRIES)), "parts, 2000 are allowed"),
        (
            lambda: make_docx(paragraph("&b;"), prolog=BILLION_LAUGHS),
            "declares a DTD or entities in 'word/document.xml'",
        ),
        (
            lambda: make_docx(paragraph("x"), prolog="<!DOCTYPE x [<!ELEMENT x ANY>]>"),
            "declares a DTD or entities in 'word/document.xml'",
        ),
        (lambda: make_docx("<w:p>"), "is no readable DOCX in 'word/document.xml' (SAXParseException"),
    ],
    ids=["empty", "magic only", "ole", "zip", "bomb", "ratio", "parts", "entities", "dtd", "xml"],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, make: Callable[[], bytes], words: str) -> None:
    with pytest.raises(Unreadable, match=re.escape(words)):
        parse(tmp_path, make())


def test_a_part_that_lies_about_its_size_is_not_unpacked_beyond_it(tmp_path: Path) -> None:
    size = 64 << 20
    bomb = make_docx(MANUAL, more={"word/bomb.xml": bytes(size)})
    told = bomb.replace(struct.pack("<L", size), struct.pack("<L", 1_000))
    assert bomb.count(struct.pack("<L", size)) == 2, "the part's header and the archive's"
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match=r"is no readable DOCX.*bomb"):
            parse(tmp_path, told)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_a_file_outside_is_not_fetched_for_a_picture(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    drawing = "http://schemas.openxmlformats.org/drawingml/2006"
    picture = (
        f'<w:p><w:r><w:drawing xmlns:a="{drawing}/main" xmlns:p="{drawing}/picture" xmlns:r="{OFFICE}">'
        f'<d:inline xmlns:d="{drawing}/wordprocessingDrawing"><a:graphic><a:graphicData><p:pic><p:blipFill>'
        '<a:blip r:link="image"/></p:blipFill></p:pic></a:graphicData></a:graphic></d:inline></w:drawing>'
        "</w:r></w:p>"
    )
    links = {"word/_rels/document.xml.rels": relations(image=secret.as_uri()).encode()}
    assert parse(tmp_path, make_docx(picture + paragraph("text"), more=links)).markdown == "text"


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_docx_is_read_or_refused_never_worse(data: st.DataObject) -> None:
    whole = bytearray(make_docx(MANUAL))
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=20))
    with tempfile.NamedTemporaryFile(suffix=".docx") as file:
        file.write(whole)
        file.flush()
        with contextlib.suppress(Unreadable):
            assert isinstance(parse_docx(Path(file.name)).markdown, str)

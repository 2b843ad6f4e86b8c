"""Bytes that are damaged, or lie about their encoding: read or refused, in any format."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_contracts.formats.document import DOCX
from tunewheel_ingest.parsing.document import ParsedDocument, Unreadable, refusing_damage
from tunewheel_ingest.parsing.formats import parse_file

PART = "word/document.xml"
XML = b'<w:document xmlns:w="urn:w"/>' + b" " * 500


def read(tmp_path: Path, data: bytes, media_type: str, name: str = "document") -> ParsedDocument:
    path = tmp_path / "document"
    path.write_bytes(data)
    return parse_file(path, media_type, name)


def packed(method: int, xml: bytes = XML) -> bytearray:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr(PART, xml)
    return bytearray(out.getvalue())


def broken(method: int, *, at: int) -> bytes:
    """Return an archive whose one part is overwritten from its byte ``at`` on."""
    whole = packed(method)
    begin = 30 + len(PART) + at  # the local header, APPNOTE.TXT §4.3.7
    whole[begin : begin + 20] = b"\xff" * 20
    return bytes(whole)


def declared(encoding: str) -> bytes:
    return bytes(packed(zipfile.ZIP_DEFLATED, f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + XML))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (broken(zipfile.ZIP_STORED, at=6), "BadZipFile"),
        (broken(zipfile.ZIP_DEFLATED, at=0), "error('Error -3"),
        (broken(zipfile.ZIP_BZIP2, at=6), "OSError"),
        (broken(zipfile.ZIP_LZMA, at=6), "LZMAError"),
        (bytes(packed(zipfile.ZIP_DEFLATED)).replace(b"\x08\x00", b"\x63\x00"), "NotImplementedError"),
        (declared("no-such-code"), "LookupError"),
        (declared("shift_jis"), "ValueError"),
        (declared("rot13"), "LookupError"),
        (declared("punycode"), "Error"),
    ],
    ids=["stored", "deflate", "bzip2", "lzma", "method", "unknown", "multi-byte", "no text code", "decoder"],
)
def test_a_docx_that_its_unpacker_or_decoder_cannot_read_is_refused(
    tmp_path: Path, data: bytes, error: str
) -> None:
    with pytest.raises(Unreadable, match="is no readable DOCX") as refused:
        read(tmp_path, data, DOCX)
    assert error in str(refused.value)
    assert "save it anew" in str(refused.value)


@pytest.mark.parametrize(
    "encoding",
    ["utf-7", "unicode_escape", "raw_unicode_escape", "punycode", "undefined", "rot13", "hex", "idna"],
)
@pytest.mark.parametrize("text", ["+2AA-", r"\ud800"], ids=["utf-7", "escape"])
def test_a_declared_encoding_that_makes_no_text_is_not_believed(
    tmp_path: Path, encoding: str, text: str
) -> None:
    python = read(tmp_path, f"# coding: {encoding}\nx = '{text}'\n".encode(), "text/x-python", "x.py")
    assert text in python.markdown, "read as UTF-8, as it stands"
    page = f'<html><head><meta charset="{encoding}"><title>{text}</title></head><p>hello {text}</p></html>'
    assert "hello" in read(tmp_path, page.encode(), "text/html").markdown


def test_half_a_surrogate_pair_in_a_docstring_is_left_out(tmp_path: Path) -> None:
    code = b'def ring():\n    "Rings \\ud83d the bell."\n'
    (section,) = read(tmp_path, code, "text/x-python", "bell.py").sections
    assert section.summary == "Rings  the bell."


def test_a_page_that_html_parser_rejects_is_refused(tmp_path: Path) -> None:
    with contextlib.suppress(Unreadable):  # newer versions of Python read it
        page = read(tmp_path, b"<html><body><p>hello</p><![foo there</body></html>", "text/html")
        assert "hello" in page.markdown


def test_a_page_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="is nested too deeply"):
        read(tmp_path, b"<table><tr><td>" * 400 + b"x", "text/html")


@pytest.mark.parametrize(
    "media_type", ["text/html", "text/markdown", "text/plain", "text/x-python", "text/x-source"]
)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, media_type: str, data: bytes
) -> None:
    with contextlib.suppress(Unreadable):
        parsed = read(tmp_path_factory.getbasetemp(), data, media_type)
        assert ParsedDocument.model_validate_json(parsed.model_dump_json()) == parsed


def test_memory_that_runs_out_is_no_damage() -> None:
    with pytest.raises(MemoryError), refusing_damage("PDF", "print it anew"):
        raise MemoryError

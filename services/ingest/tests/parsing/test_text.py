from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_ingest.parsing.document import Unreadable
from tunewheel_ingest.parsing.formats import parse_file
from tunewheel_ingest.parsing.formats.text import decode, decode_python

RUSSIAN = "\u0417\u0432\u043e\u043d\u043e\u043a \u043d\u0435 \u0437\u0432\u043e\u043d\u0438\u0442. "
GREEK = "\u03b7 \u03bc\u03c0\u03b1\u03c4\u03b1\u03c1\u03af\u03b1 \u03bb\u03ac\u03bc\u03c0\u03b5\u03b9 " * 8


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        ("caf\u00e9 \U0001f6b2".encode(), "caf\u00e9 \U0001f6b2", "utf-8"),
        (b"\xef\xbb\xbfx", "x", "utf-8-sig"),
        ("x\u05e9".encode("utf-16"), "x\u05e9", "utf-16"),
        ("x\u05e9".encode("utf-32"), "x\u05e9", "utf-32"),
        (GREEK.encode("iso8859-7"), GREEK, None),
    ],
)
def test_the_encoding_is_told_from_the_bytes(data: bytes, text: str, encoding: str | None) -> None:
    assert decode(data)[0] == text
    assert encoding in (None, decode(data)[1])


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Na\u00efve caf\u00e9 \u2013 the \u201cbell\u201d", "cp1252"),
        (RUSSIAN * 3, "cp1251"),
        ("Dzwonek nie dzia\u0142a, prosz\u0119 o pomoc, gdy\u017c nie dzwoni " * 3, "cp1250"),
    ],
)
def test_few_accents_are_read_as_windows_wrote_them(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == (text, encoding)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xfe\x00", "is no valid utf-16"),
        (b"PK\x00\x01", "holds NUL bytes"),
        (GREEK.encode("iso8859-7") + b"\x81\x8d\x8f\x90" * 400_000, ""),
    ],
)
def test_what_is_no_text_says_so(data: bytes, words: str) -> None:
    with pytest.raises(Unreadable, match=words or "encoding|NUL"):
        decode(data)


def test_python_is_decoded_as_it_declares() -> None:
    source = "# -*- coding: latin-1 -*-\nname = 'caf\u00e9'\n"
    assert decode_python(source.encode("latin-1")) == source
    assert decode_python(b"# coding: nonsense\nx = 1") == "# coding: nonsense\nx = 1"


def test_a_guessed_encoding_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(GREEK.encode("iso8859-7"))
    parsed = parse_file(path, "text/plain", "a.txt")
    assert "encoding" in parsed.attributes
    assert [s.text for s in parsed.sections] == [parsed.markdown]


def test_an_empty_document_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b" \n\t")
    with pytest.raises(Unreadable, match="holds no text"):
        parse_file(path, "text/markdown", "a.md")


@given(st.binary(max_size=300))
def test_any_bytes_are_text_or_refused(data: bytes) -> None:
    with contextlib.suppress(Unreadable):
        text, _ = decode(data)
        assert "\x00" not in text

"""Decodes bytes as text, and reads plain text and Markdown."""

from __future__ import annotations

import codecs
import io
import tokenize
from collections.abc import Callable
from pathlib import Path

from tunewheel_ingest.normalising import normalise
from tunewheel_ingest.parsing.document import ParsedDocument, Parser, Unreadable, refusing_damage
from tunewheel_ingest.parsing.markdown import front_matter_title, sections_of, title_of

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte-order marks, with a longer mark before a shorter one that it starts with."""
USUAL = ("cp1252", "cp1251", "cp1250")
"""The default encodings of Windows: western, Cyrillic and central European."""
SLACK = 0.1
"""Two encodings fit about equally well if charset_normalizer's coherence (0 to 1) differs by less than
this."""
SAMPLE_BYTES = 256 * 1024
"""The size of the sample from which an unknown encoding is detected. A larger one is slower, not better."""


def decode(data: bytes) -> tuple[str, str]:
    """Return (text, encoding). The encoding follows from the byte-order mark, else is UTF-8 if the bytes are
    valid, else is detected.

    Raises:
        Unreadable: the bytes are no text in any known encoding.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise Unreadable(f"is no valid {encoding} (byte {error.start}); save it as UTF-8") from error
        with refusing_damage("text", "save it as UTF-8"):
            encoding = _guess(data, error.start)
            try:
                text = _whole(data, encoding)
            except UnicodeDecodeError as other:
                raise Unreadable(
                    f"is neither UTF-8 (byte {error.start}) nor {encoding} (byte {other.start}): the "
                    "encoding changes within it; save it as UTF-8"
                ) from other
    if "\x00" in text:
        raise Unreadable("is no text (it holds NUL bytes); publish it as what it is, or convert it")
    return text, encoding


def decode_python(data: bytes) -> str:
    """Return Python source as text, decoded from the encoding that it declares (PEP 263)."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return _whole(data, encoding)
    except (SyntaxError, LookupError, UnicodeError):
        return decode(data)[0]


def _whole(data: bytes, encoding: str) -> str:
    """Return ``data`` as text that UTF-8 can encode. Decoding UTF-7 or unicode_escape may give lone
    surrogates.

    Raises:
        UnicodeError: ``data`` is not in that encoding, or holds a lone surrogate.
    """
    text = data.decode(encoding)
    text.encode("utf-8")
    return text


def read_text(path: Path, parse: Callable[[str], ParsedDocument]) -> ParsedDocument:
    """Decode a file, and read its text. The attribute ``encoding`` names an encoding other than UTF-8."""
    text, encoding = decode(path.read_bytes())
    parsed = parse(text)
    if encoding in ("utf-8", "utf-8-sig"):
        return parsed
    return parsed.model_copy(update={"attributes": parsed.attributes | {"encoding": encoding}})


def parse_markdown(text: str) -> ParsedDocument:
    """Return normalised Markdown with its sections."""
    text = normalise(text)
    title = title_of(text) or front_matter_title(text)
    return ParsedDocument(markdown=text, sections=sections_of(text), title=title)


def parse_plain(text: str) -> ParsedDocument:
    """Return plain text as one section: a section per paragraph would separate what belongs together."""
    text = normalise(text)
    parsed = ParsedDocument(markdown=text)
    if not text:
        return parsed
    from tunewheel_contracts.formats.document import DocumentSection

    return parsed.model_copy(update={"sections": (DocumentSection(text=text),)})


def _guess(data: bytes, where: int) -> str:
    """Detect the encoding from the bytes around ``where``.

    One of ``USUAL`` wins if it fits about as well as the best: with few accented letters many encodings fit,
    and an unusual one is seldom right.
    """
    from charset_normalizer import from_bytes

    # a sample around the first byte that is not ASCII, because a text may begin with much ASCII
    start = max(0, where - SAMPLE_BYTES // 8)
    found = from_bytes(data[start : start + SAMPLE_BYTES])
    best = found.best()
    if best is None:
        raise Unreadable(f"is no text in any known encoding (byte {where}); save it as UTF-8")
    as_good = {
        name
        for match in found
        if match.chaos <= best.chaos and match.coherence >= best.coherence - SLACK
        for name in match.could_be_from_charset
    }
    return next((name for name in USUAL if name in as_good), best.encoding)


MARKDOWN = Parser(
    "text/markdown",
    lambda path, name: read_text(path, parse_markdown),
    libraries=("charset_normalizer",),
    read_here=parse_markdown,
)
PLAIN = Parser(
    "text/plain",
    lambda path, name: read_text(path, parse_plain),
    libraries=("charset_normalizer",),
    read_here=parse_plain,
)

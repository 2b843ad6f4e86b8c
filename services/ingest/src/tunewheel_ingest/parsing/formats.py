"""Chooses the parser by media type."""

from __future__ import annotations

from pathlib import Path

from tunewheel_contracts.formats.document import DOCX

from tunewheel_ingest.parsing.code import parse_code
from tunewheel_ingest.parsing.document import ParsedDocument, Unreadable
from tunewheel_ingest.parsing.text import decode, decode_python, parse_markdown, parse_plain


def parse_file(path: Path, media_type: str, name: str) -> ParsedDocument:
    """Read the file at ``path``. ``name`` is the document's id; for code, its ending tells the language.

    Raises:
        Unreadable: the file does not fit ``media_type``, or holds no text.
    """
    parsed = _parse(path, media_type, name)
    if not parsed.markdown.strip():
        raise Unreadable("holds no text; publish a document with text in it, or none")
    return parsed


def _parse(path: Path, media_type: str, name: str) -> ParsedDocument:
    if media_type == "application/pdf":
        from tunewheel_ingest.parsing.pdf import parse_pdf

        return parse_pdf(path)
    if media_type == DOCX:
        from tunewheel_ingest.parsing.docx import parse_docx

        return parse_docx(path)
    data = path.read_bytes()
    if media_type == "text/html":
        from tunewheel_ingest.parsing.html import parse_html

        return parse_html(data)
    if media_type == "text/x-python":
        return parse_code(_lines_ended(decode_python(data)), name if name.endswith(".py") else f"{name}.py")
    text, encoding = decode(data)
    parsed = _parse_text(text, media_type, name)
    if encoding in ("utf-8", "utf-8-sig"):
        return parsed
    return parsed.model_copy(update={"attributes": parsed.attributes | {"encoding": encoding}})


def _parse_text(text: str, media_type: str, name: str) -> ParsedDocument:
    if media_type == "text/markdown":
        return parse_markdown(text)
    if media_type == "text/plain":
        return parse_plain(text)
    if media_type == "text/x-source":
        return parse_code(_lines_ended(text), name)
    raise Unreadable(f"is {media_type}, which nothing here reads")


def _lines_ended(text: str) -> str:
    """Return code with LF line ends and without a byte-order mark, otherwise unchanged."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")

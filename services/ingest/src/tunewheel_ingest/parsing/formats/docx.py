"""Reads DOCX as Markdown. The archive is checked before anything in it is unpacked."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from tunewheel_contracts.formats.document import DOCX

from tunewheel_ingest.parsing.document import ParsedDocument, Parser, Unreadable, refusing_damage
from tunewheel_ingest.parsing.formats.html import to_markdown
from tunewheel_ingest.parsing.markdown import sections_of, title_of

MAX_ENTRIES = 2_000
MAX_UNPACKED_BYTES = 200 << 20
MAX_RATIO = 200
"""The largest ratio of unpacked to packed size for a part over ``FREE_BYTES``. XML compresses 10- to
50-fold."""
FREE_BYTES = 1 << 20
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""The first bytes of a compound file: an old .doc, or an encrypted .docx ([MS-OFFCRYPTO] §1.3)."""
STYLES = """
p[style-name='Title'] => h1:fresh
p[style-name='Subtitle'] => p:fresh
p[style-name='Code'] => pre:separator('\\n')
p[style-name='HTML Preformatted'] => pre:separator('\\n')
p[style-name='Source Code'] => pre:separator('\\n')
r[style-name='Code'] => code
"""


def parse_docx(path: Path) -> ParsedDocument:
    """Return a DOCX as Markdown. Headings, lists, tables and code are kept, pictures left out.

    Raises:
        Unreadable: the file is no DOCX, is encrypted, or is a zip bomb.
    """
    import mammoth
    from bs4 import BeautifulSoup

    data = io.BytesIO(path.read_bytes())
    with refusing_damage("DOCX", "simplify it, or open it and save it anew"):
        _judge(data)
        html = mammoth.convert_to_html(
            data, style_map=STYLES, include_embedded_style_map=False, convert_image=_no_image
        ).value
        markdown = to_markdown(BeautifulSoup(html, "html.parser"))
    return ParsedDocument(markdown=markdown, sections=sections_of(markdown), title=title_of(markdown))


def _no_image(_: object) -> list[object]:
    return []


def _judge(data: io.BytesIO) -> None:
    """Refuse files that are no DOCX, and zip and XML bombs: too many parts, too large, too high a ratio, or
    DTDs in the XML, which OPC forbids (ECMA-376 part 2 §7.2.1)."""
    if data.getvalue()[:8] == OLE_MAGIC:
        raise Unreadable("is encrypted, or an old .doc; save it as .docx without a password")
    with zipfile.ZipFile(data) as archive:
        parts = archive.infolist()
        _judge_sizes(parts)
        if not any(part.filename.startswith("word/") for part in parts):
            raise Unreadable("is an archive, but no DOCX; publish it as what it is")
        for part in parts:
            if part.filename.endswith((".xml", ".rels")):
                _judge_xml(_read(archive, part), part.filename)
    data.seek(0)


def _read(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bytes:
    """Return a part, unpacked up to its stated size. ``archive.read`` would ignore the stated size."""
    with archive.open(part) as stream:
        return stream.read(part.file_size)


def _judge_sizes(parts: list[zipfile.ZipInfo]) -> None:
    if len(parts) > MAX_ENTRIES:
        raise Unreadable(f"holds {len(parts)} parts, {MAX_ENTRIES} are allowed; is it a zip bomb?")
    total = sum(part.file_size for part in parts)
    if total > MAX_UNPACKED_BYTES:
        raise Unreadable(f"unpacks to {total} bytes, {MAX_UNPACKED_BYTES} are allowed; is it a zip bomb?")
    for part in parts:
        if part.file_size > FREE_BYTES and part.file_size > MAX_RATIO * max(1, part.compress_size):
            ratio = part.file_size // max(1, part.compress_size)
            raise Unreadable(
                f"holds {part.filename[:80]!r}, which unpacks {ratio}-fold, {MAX_RATIO} are allowed; "
                "is it a zip bomb?"
            )


def _judge_xml(xml: bytes, name: str) -> None:
    from xml.sax.handler import ContentHandler

    from defusedxml import DefusedXmlException
    from defusedxml.sax import parseString

    with refusing_damage(f"DOCX in {name[:80]!r}", "open it and save it anew"):
        try:
            parseString(xml, ContentHandler(), forbid_dtd=True)
        except DefusedXmlException as error:
            raise Unreadable(f"declares a DTD or entities in {name[:80]!r}; save it anew without") from error


WORD = Parser(
    DOCX, lambda path, name: parse_docx(path), libraries=("mammoth", "bs4", "markdownify", "defusedxml.sax")
)

"""Reads DOCX as Markdown."""

from __future__ import annotations

import io
from pathlib import Path

from tunewheel_contracts.formats.document import DOCX

from tunewheel_ingest.parsing.archives import judge_archive
from tunewheel_ingest.parsing.document import ParsedDocument, Parser, refusing_damage
from tunewheel_ingest.parsing.formats.html import to_markdown
from tunewheel_ingest.parsing.markdown import sections_of, title_of

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
        judge_archive(data, "DOCX", "word/")
        html = mammoth.convert_to_html(
            data, style_map=STYLES, include_embedded_style_map=False, convert_image=_no_image
        ).value
        markdown = to_markdown(BeautifulSoup(html, "html.parser"))
    return ParsedDocument(markdown=markdown, sections=sections_of(markdown), title=title_of(markdown))


def _no_image(_: object) -> list[object]:
    return []


WORD = Parser(
    DOCX, lambda path, name: parse_docx(path), libraries=("mammoth", "bs4", "markdownify", "defusedxml.sax")
)

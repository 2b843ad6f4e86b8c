"""Reads a PDF as lines and tables, page by page. ``pdf_layout`` turns them into Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunewheel_ingest.normalising import normalise
from tunewheel_ingest.parsing.document import ParsedDocument, Parser, Unreadable, refusing_damage
from tunewheel_ingest.parsing.pdf_columns import Columns
from tunewheel_ingest.parsing.pdf_layout import lay_out
from tunewheel_ingest.parsing.pdf_pieces import WORD_GAP, PdfLine, PdfTable, Piece

_MAGIC = b"%PDF-"
MAGIC_WITHIN = 1_024
"""``%PDF-`` must be within so many bytes from the start (PDF 1.7, appendix H, note 13)."""
SINGLE_FONT = 0.9
FIXED_CHARACTERS = 6
"""A font is fixed-width if at least so many different characters were seen, all of one width."""
MOST_UNMAPPED = 0.2
"""The largest share of glyphs without a known character. Beyond it the text is unusable."""


Widths = dict[str, dict[str, float]]
"""By font and character, the width in units of the font size."""


def parse_pdf(path: Path) -> ParsedDocument:
    """Return a PDF's text, with the page of every section.

    Headings are found by font size, tables by their rules, and code by its fixed-width font.

    Raises:
        Unreadable: the file is no PDF, is damaged, is encrypted with a password, or has no text (a scan).
    """
    with path.open("rb") as file:
        if _MAGIC not in file.read(MAGIC_WITHIN):
            raise Unreadable("is no PDF; publish it as what it is")
    pieces: list[Piece] = []
    widths: Widths = {}
    with _opened(path) as pdf:
        pages = len(pdf.pages)
        for page in pdf.pages:
            pieces.extend(_pieces(page, widths))
            page.close()  # else the characters of all pages stay in memory
        title = _told_title(pdf.metadata)
        _require_text(pieces, pages)
        markdown, sections = lay_out(pieces, _fixed(widths))
    heading = next((section.path[0] for section in sections if section.path), "")
    return ParsedDocument(
        markdown=markdown, sections=sections, title=heading or title, attributes={"pages": str(pages)}
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pdfplumber
    from pdfminer.pdfdocument import PDFEncryptionError
    from pdfminer.psexceptions import PSException
    from pdfplumber.utils.exceptions import MalformedPDFException, PdfminerException

    with refusing_damage("PDF", "print it to PDF anew"):
        try:
            with pdfplumber.open(path) as pdf:
                yield pdf
        except (PdfminerException, MalformedPDFException, PSException) as error:
            cause = error.args[0] if error.args else error  # pdfplumber wraps pdfminer's exceptions
            if isinstance(cause, PDFEncryptionError) or isinstance(error, PDFEncryptionError):
                raise Unreadable(
                    "is encrypted; publish it decrypted (qpdf --password=… --decrypt in.pdf out.pdf)"
                ) from error
            raise (cause if isinstance(cause, Exception) else error) from error


def _pieces(page: Any, widths: Widths) -> list[Piece]:
    """Return a page's lines and tables in reading order."""
    tables = [(table.bbox, rows) for table in page.find_tables() if (rows := _rows(table))]
    boxes = [box for box, _ in tables]

    def outside(item: dict[str, Any]) -> bool:
        return item["object_type"] != "char" or not any(_within(item, box) for box in boxes)

    text = page.filter(outside) if boxes else page
    lines = text.extract_text_lines(return_chars=True, x_tolerance_ratio=WORD_GAP)
    columns = Columns.of(lines, float(page.width))
    found: list[Piece] = [
        PdfTable(page.page_number, box[1], box[0], box[2], tuple(rows)) for box, rows in tables
    ]
    parts = (part for line in lines for part in columns.split(line))
    found.extend(_line(page, part, widths) for part in parts if part["text"].strip())
    return columns.order(found)


def _line(page: Any, line: dict[str, Any], widths: Widths) -> PdfLine:
    chars = [char for char in line["chars"] if char["text"].strip()]
    fonts = Counter(char["fontname"] for char in chars)
    font, count = fonts.most_common(1)[0] if fonts else ("", 0)
    for char in chars:
        seen = widths.setdefault(char["fontname"], {})
        seen.setdefault(char["text"], char["width"] / char["size"] if char["size"] else 0.0)
    sizes = Counter(round(char["size"] * 2) / 2 for char in line["chars"])
    return PdfLine(
        page=page.page_number,
        top=line["top"],
        bottom=line["bottom"],
        left=line["x0"],
        right=line["x1"],
        size=min(sizes, key=lambda size: (-sizes[size], size)),
        text=normalise(line["text"]),
        font=font if count >= SINGLE_FONT * len(chars) else "",
        advance=sum(char["width"] for char in chars) / len(chars) if chars else 0.0,
        at_edge=line["bottom"] < 0.09 * page.height or line["top"] > 0.91 * page.height,
    )


def _fixed(widths: Widths) -> frozenset[str]:
    """Return the fixed-width fonts."""
    return frozenset(
        font
        for font, seen in widths.items()
        if len(seen) >= FIXED_CHARACTERS and max(seen.values()) - min(seen.values()) < 0.02
    )


def _rows(table: Any) -> list[tuple[str, ...]]:
    """Return a table's cells as text; an empty list if it is a frame around text."""
    rows = [tuple(" ".join(normalise(cell or "").split()) for cell in row) for row in table.extract()]
    rows = [row for row in rows if any(row)]
    return rows if len(rows) > 1 and max(map(len, rows)) > 1 else []


def _within(char: dict[str, Any], box: tuple[float, float, float, float]) -> bool:
    middle = (char["x0"] + char["x1"]) / 2, (char["top"] + char["bottom"]) / 2
    return box[0] <= middle[0] <= box[2] and box[1] <= middle[1] <= box[3]


def _told_title(metadata: dict[str, Any]) -> str:
    title = metadata.get("Title")
    return " ".join(normalise(title).split()) if isinstance(title, str) else ""


def _require_text(pieces: list[Piece], pages: int) -> None:
    text = "".join(piece.text for piece in pieces if isinstance(piece, PdfLine))
    if not pieces:
        raise Unreadable(
            f"holds no text on its {pages} pages; if it is a scan, recognise the text first (ocrmypdf)"
        )
    if text.count("(cid:") * len("(cid:00)") > MOST_UNMAPPED * len(text) > 0:
        raise Unreadable(
            "has fonts that do not say which characters they show; recognise the text first (ocrmypdf)"
        )


PDF = Parser("application/pdf", lambda path, name: parse_pdf(path), libraries=("pdfplumber",))

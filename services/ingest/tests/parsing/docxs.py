"""DOCX files made by hand."""

from __future__ import annotations

import io
import zipfile

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
DOCUMENT = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument'
    '.wordprocessingml.document.main+xml"/></Types>'
)
LINKS = (
    f'<Relationships xmlns="{RELATIONS}"><Relationship Id="rId1" Type="{DOCUMENT}" '
    'Target="word/document.xml"/></Relationships>'
)
STYLES = f'<w:styles {W}>' + "".join(
    f'<w:style w:type="paragraph" w:styleId="{name.replace(" ", "")}"><w:name w:val="{name}"/></w:style>'
    for name in ("Title", "heading 1", "heading 2", "Code")
) + "</w:styles>"  # fmt: skip
NUMBERING = (
    f'<w:numbering {W}><w:abstractNum w:abstractNumId="0"><w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/>'
    '</w:lvl></w:abstractNum><w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num></w:numbering>'
)
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def relations(**targets: str) -> str:
    """Return the document's relations: the kind of each part and where it lies."""
    links = (
        f'<Relationship Id="{kind}" Type="{OFFICE}/{kind}" Target="{target}"'
        f"{' TargetMode=' + chr(34) + 'External' + chr(34) if ':' in target else ''}/>"
        for kind, target in targets.items()
    )
    return f'<Relationships xmlns="{RELATIONS}">{"".join(links)}</Relationships>'


def paragraph(text: str, style: str = "", *, item: bool = False) -> str:
    properties = f'<w:pStyle w:val="{style}"/>' if style else ""
    properties += '<w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr>' if item else ""
    return f'<w:p><w:pPr>{properties}</w:pPr><w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'


def table(*rows: tuple[str, ...]) -> str:
    cells = ("".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) for row in rows)
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


def merged(*rows: tuple[tuple[str, str], ...]) -> str:
    """Return a table of cells, each a text and its properties (ECMA-376 part 1 §17.4.17, §17.4.84)."""
    cells = (
        "".join(f"<w:tc><w:tcPr>{properties}</w:tcPr>{paragraph(text)}</w:tc>" for text, properties in row)
        for row in rows
    )
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


def make_docx(body: str, *, prolog: str = "", more: dict[str, bytes] | None = None) -> bytes:
    """Return a DOCX with ``body`` in it; ``prolog`` stands before the document's root, ``more`` are parts."""
    document = f"{prolog}<w:document {W}><w:body>{body}</w:body></w:document>"
    parts: dict[str, str | bytes] = {
        "[Content_Types].xml": TYPES,
        "_rels/.rels": LINKS,
        "word/document.xml": document,
        "word/_rels/document.xml.rels": relations(styles="styles.xml", numbering="numbering.xml"),
        "word/styles.xml": STYLES,
        "word/numbering.xml": NUMBERING,
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (parts | (more or {})).items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


MANUAL = (
    paragraph("Trail 2", "Title")
    + paragraph("Battery", "heading2")
    + paragraph("One long charge. \u05e9\u05dc\u05d5\u05dd \U0001f6b2")
    + paragraph("Plug it in.", item=True)
    + paragraph("Wait.", item=True)
    + table(("light", "means"), ("red", "empty"))
    + paragraph("charge()", "Code")
    + paragraph("wait()", "Code")
)

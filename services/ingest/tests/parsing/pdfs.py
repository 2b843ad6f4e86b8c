"""PDFs made by hand: text in sizes and places, ruled tables, scans, and encryption."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

HEIGHT = 800


@dataclass(frozen=True)
class Word:
    """``text`` at ``top`` points below the page's upper edge."""

    text: str
    top: int
    size: int = 10
    left: int = 60
    font: str = "F1"
    """F2 is Courier."""


@dataclass(frozen=True)
class Grid:
    """A ruled table."""

    rows: Sequence[Sequence[str]]
    top: int
    left: int = 60
    width: int = 100
    height: int = 20


Content = Word | Grid


def make_pdf(*pages: Sequence[Content], title: str = "", extra: bytes = b"", trailer: bytes = b"") -> bytes:
    """Return a PDF 1.4; ``extra`` is one more object, ``trailer`` goes into the trailer."""
    count = len(pages)
    kids = " ".join(f"{5 + 2 * n} 0 R" for n in range(count))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding >>",
    ]
    for number, contents in enumerate(pages):
        body = "\n".join(_drawn(content) for content in contents).encode("cp1252")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 {HEIGHT}] /Contents {6 + 2 * number} 0 R "
            "/Resources << /Font << /F1 3 0 R /F2 4 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(body), body))
    objects.append(f"<< /Title ({title}) >>".encode())
    info = len(objects)
    if extra:
        objects.append(extra)
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info %d 0 R %s >>\n" % (len(objects) + 1, info, trailer)
    return bytes(out + b"startxref\n%d\n%%%%EOF\n" % start)


def bomb_pdf(*, mebibytes: int, nested: int = 1) -> bytes:
    """Return a PDF whose one page is ``mebibytes`` of zeros, deflated ``nested`` times."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = squeeze.compress(bytes(1 << 20)) + squeeze.flush(
        zlib.Z_FULL_FLUSH
    )  # stands alone: can be repeated
    check = (((mebibytes << 20) % 65_521) << 16 | 1).to_bytes(4, "big")  # Adler-32 of zeros
    stream = b"\x78\xda" + block * mebibytes + b"\x03\x00" + check
    for _ in range(nested - 1):
        stream = zlib.compress(stream, 9)
    filters = b"/FlateDecode " * nested
    whole = make_pdf([Word("bomb", 100)])
    page = whole[whole.index(b"<< /Length") : whole.index(b"endstream")]
    packed = b"<< /Length %d /Filter [%s] >>\nstream\n%s\n" % (len(stream), filters, stream)
    return whole.replace(page, packed)  # readers find the moved objects by themselves


def encrypted_pdf() -> bytes:
    """Return a PDF that no empty password opens: its check values fit none."""
    number = 4 + 2 + 1 + 1  # fixed objects, one page of two, info, then the dictionary itself
    check = b"<" + b"5a" * 32 + b">"
    extra = b"<< /Filter /Standard /V 1 /R 2 /O %s /U %s /P -44 >>" % (check, check)
    trailer = b"/Encrypt %d 0 R /ID [<%s> <%s>]" % (number, b"00" * 16, b"00" * 16)
    return make_pdf([Word("secret", 100)], extra=extra, trailer=trailer)


MANUAL = (
    [
        Word("Lumen Bikes", 30, 8),
        Word("Trail 2 Manual", 80, 24),
        Word("Battery", 130, 16),
        Word("A battery that stops at 60 % wants one long", 160),
        Word("charge. It is over-", 172),
        Word("discharged otherwise.", 184),
        Word("\u2022 Plug it in.", 210),
        Word("\u2022 Wait for a night,", 222),
        Word("or two.", 234, left=70),
        Grid([["light", "means"], ["red", "empty"], ["a|b", "full"]], 260),
        Word("The rest of the story goes", 700),
        Word("Page 1", 780, 8),
    ],
    [
        Word("Lumen Bikes", 30, 8),
        Word("on here.", 80),
        Word("Bell", 130, 16),
        Word("It rings.", 160),
        Word("Page 2", 780, 8),
    ],
    [Word("Lumen Bikes", 30, 8), Word("1. One.", 80), Word("2. Two.", 92), Word("Page 3", 780, 8)],
)


def _drawn(content: Content) -> str:
    if isinstance(content, Word):
        return _shown(content.text, content.left, content.top, content.size, content.font)
    lines, columns = [], len(content.rows[0])
    right, bottom = content.left + columns * content.width, content.top + len(content.rows) * content.height
    for row in range(len(content.rows) + 1):
        y = HEIGHT - content.top - row * content.height
        lines.append(f"{content.left} {y} m {right} {y} l S")
    for column in range(columns + 1):
        x = content.left + column * content.width
        lines.append(f"{x} {HEIGHT - content.top} m {x} {HEIGHT - bottom} l S")
    for row, cells in enumerate(content.rows):
        for column, cell in enumerate(cells):
            left = content.left + column * content.width + 4
            lines.append(_shown(cell, left, content.top + row * content.height + 5, 10))
    return "\n".join(lines)


def _shown(text: str, left: int, top: int, size: int, font: str = "F1") -> str:
    escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return f"BT /{font} {size} Tf {left} {HEIGHT - top - size} Td ({escaped}) Tj ET"

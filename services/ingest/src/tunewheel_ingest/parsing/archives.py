"""Checks the archive of an Office Open XML file (DOCX, XLSX, PPTX) before anything in it is unpacked."""

from __future__ import annotations

import io
import zipfile

from tunewheel_ingest.parsing.document import Unreadable, refusing_damage

MAX_ENTRIES = 2_000
MAX_UNPACKED_BYTES = 200 << 20
MAX_RATIO = 200
"""The largest ratio of unpacked to packed size for a part over ``FREE_BYTES``. XML compresses 10- to
50-fold."""
FREE_BYTES = 1 << 20
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""The first bytes of a compound file: an old .doc, or an encrypted .docx ([MS-OFFCRYPTO] §1.3)."""


def judge_archive(data: io.BytesIO, kind: str, folder: str) -> None:
    """Refuse files that are no ``kind``, whose parts lie in ``folder``, and zip and XML bombs: too many
    parts, too large, too high a ratio, or DTDs in the XML, which OPC forbids (ECMA-376 part 2 §7.2.1).

    Raises:
        Unreadable: the file is refused.
    """
    if data.getvalue()[:8] == OLE_MAGIC:
        raise Unreadable(f"is encrypted, or of an old format; save it as .{kind.lower()} without a password")
    with zipfile.ZipFile(data) as archive:
        parts = archive.infolist()
        _judge_sizes(parts)
        if not any(part.filename.startswith(folder) for part in parts):
            raise Unreadable(f"is an archive, but no {kind}; publish it as what it is")
        for part in parts:
            if part.filename.endswith((".xml", ".rels")):
                _judge_xml(_read(archive, part), kind, part.filename)
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


def _judge_xml(xml: bytes, kind: str, name: str) -> None:
    from xml.sax.handler import ContentHandler

    from defusedxml import DefusedXmlException
    from defusedxml.sax import parseString

    with refusing_damage(f"{kind} in {name[:80]!r}", "open it and save it anew"):
        try:
            parseString(xml, ContentHandler(), forbid_dtd=True)
        except DefusedXmlException as error:
            raise Unreadable(f"declares a DTD or entities in {name[:80]!r}; save it anew without") from error

"""What every parser returns, and how it refuses."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from tunewheel_contracts.fields import Frozen
from tunewheel_contracts.formats.document import DocumentSection

PARSER_VERSION = 2
"""Counts up when a document would be read in another way: the same document then is a new record."""


class ParsedDocument(Frozen):
    """A document as Markdown with its structure kept, and in pieces that know their place."""

    markdown: str
    sections: tuple[DocumentSection, ...] = ()
    title: str = ""
    """What the document calls itself; empty where it does not say."""
    attributes: dict[str, str] = {}


class Unreadable(Exception):
    """The bytes are not what they are said to be, or hold no text. The message says how to mend it."""


@contextmanager
def refusing_damage(kind: str, mend: str) -> Generator[None]:
    """Turn whatever a library ends with into ``Unreadable``: it was led there by the document's bytes.

    No list of classes would be complete. ``zipfile`` alone raises ``zlib.error``, ``lzma.LZMAError``,
    ``OSError`` (bzip2), ``struct.error``, ``NotImplementedError`` and ``RuntimeError``; decoders raise
    ``LookupError`` and ``UnicodeError``; mammoth, pdfminer and html.parser have no class of their own.

    Args:
        kind: what the document is said to be, as in "is no readable PDF".
        mend: what its author can do about it.

    Raises:
        Unreadable: anything else was raised, ``MemoryError`` excepted: the limit tells of that.
    """
    try:
        yield
    except (Unreadable, MemoryError):
        raise
    except RecursionError as error:
        raise Unreadable(f"is nested too deeply to be read; {mend}") from error
    except Exception as error:
        raise Unreadable(f"is no readable {kind} ({error!r}); {mend}") from error

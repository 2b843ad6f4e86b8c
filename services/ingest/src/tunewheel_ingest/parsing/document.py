"""What a parser is, the result that it returns, and the error by which it refuses a document."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.fields import Frozen
from tunewheel_contracts.formats.document import DocumentSection

PARSER_VERSION = 2
"""Raise this number when a change of the parsers changes their results. The same document, published again,
then becomes a new record."""


class ParsedDocument(Frozen):
    """A document as Markdown, and as sections, each with its place in the document."""

    markdown: str
    sections: tuple[DocumentSection, ...] = ()
    title: str = ""
    """The document's own title; empty if it has none."""
    attributes: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Parser:
    """Reads the documents of one media type."""

    media_type: str
    read: Callable[[Path, str], ParsedDocument]
    """Reads the file at a path as the document of this id. Raises ``Unreadable``."""
    endings: tuple[str, ...] = ()
    """Endings of a document's id, such as ``.rtf``, that ``media_type_of`` lacks."""
    libraries: tuple[str, ...] = ()
    """The modules that are loaded before the first document, so that later documents need not load them."""
    read_here: Callable[[str], ParsedDocument] | None = None
    """Reads a text inside the service, for a format that needs no process with limits: our own code reads it
    line by line, in linear time."""


class Unreadable(Exception):
    """The bytes do not fit the media type, or hold no text. The message says how to correct it."""


@contextmanager
def refusing_length() -> Generator[None]:
    """Turn a text that is longer than the contract allows into ``Unreadable``. Even a document within the
    limits may give such a text, because Unicode's NFC turns some characters into two or three.

    Raises:
        Unreadable: a section is too long.
    """
    try:
        yield
    except ValidationError as error:
        advice = "divide it by headings, or publish the document in parts"
        raise Unreadable(f"has a section whose text {first_complaint(error)[1]}; {advice}") from error


@contextmanager
def refusing_damage(kind: str, mend: str) -> Generator[None]:
    """Turn every exception of a library into ``Unreadable``: the document's bytes caused it.

    A list of exception classes would never be complete. ``zipfile`` alone raises ``zlib.error``,
    ``lzma.LZMAError``, ``OSError`` (bzip2), ``struct.error``, ``NotImplementedError`` and ``RuntimeError``.
    Decoders raise ``LookupError`` and ``UnicodeError``. mammoth, pdfminer and html.parser have no class of
    their own.

    Args:
        kind: the document's format, as in "is no readable PDF".
        mend: what the author can do about it.

    Raises:
        Unreadable: the library raised an exception. ``MemoryError`` passes through and is reported as the
            memory limit.
    """
    try:
        yield
    except (Unreadable, MemoryError):
        raise
    except RecursionError as error:
        raise Unreadable(f"is nested too deeply to be read; {mend}") from error
    except Exception as error:
        raise Unreadable(f"is no readable {kind} ({error!r}); {mend}") from error

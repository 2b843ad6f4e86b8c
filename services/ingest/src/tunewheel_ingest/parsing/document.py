"""What every parser returns, and how it refuses."""

from __future__ import annotations

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

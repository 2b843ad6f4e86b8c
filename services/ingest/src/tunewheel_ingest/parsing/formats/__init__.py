"""All parsers. Each module of this folder has one ``Parser`` or more. A new parser needs only a new file."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath

from tunewheel_contracts.formats.document import DocumentSection, media_type_of

from tunewheel_ingest.parsing.document import ParsedDocument, Parser, Unreadable
from tunewheel_ingest.parsing.formats.html import parse_mail


@cache
def known_parsers() -> Mapping[str, Parser]:
    """Return every parser by its media type."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Parser)]
    return {parser.media_type: parser for parser in found}


def known_type(document_id: str) -> str | None:
    """Return the media type for the ending of ``document_id``; None: no parser has this ending."""
    suffix = PurePosixPath(document_id).suffix.lower()
    own = (parser.media_type for parser in known_parsers().values() if suffix in parser.endings)
    return media_type_of(document_id) or next(own, None)


def parse_mails(path: Path, media_type: str, name: str) -> ParsedDocument:
    """Read the file at ``path``, a JSON list of HTML texts. Each becomes one section.

    Raises:
        Unreadable: a text is damaged.
    """
    texts = [parse_mail(text) for text in json.loads(path.read_bytes())]
    return ParsedDocument(markdown="", sections=tuple(DocumentSection(text=text) for text in texts))


def parse_file(path: Path, media_type: str, name: str) -> ParsedDocument:
    """Read the file at ``path``. ``name`` is the document's id; for code, its ending tells the language.

    Raises:
        Unreadable: the file does not fit ``media_type``, or holds no text.
    """
    parsed = known_parsers()[media_type].read(path, name)
    if not parsed.markdown.strip():
        raise Unreadable("holds no text; publish a document with text in it, or none")
    return parsed

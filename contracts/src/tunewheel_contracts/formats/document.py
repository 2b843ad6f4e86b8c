"""What was read out of a document: text in pieces, each with the place it came from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import Frozen, Text

Place = Annotated[int, Field(ge=1)]


class DocumentSection(Frozen):
    """One piece of a document, in reading order: the prose below one heading, one table, or one piece of
    code. Sections do not overlap; together they hold the document's text."""

    path: tuple[str, ...] = ()
    """The headings above it, outermost first; for code the classes around it."""
    text: Text
    """Markdown for prose and tables, without the heading itself; code as it stands, without its fence."""
    kind: Literal["prose", "table", "code"] = "prose"
    page: Place | None = None
    """Page of a PDF, from 1: where the section begins."""
    first_line: Place | None = None
    """Lines of the source file, from 1, both ends included: for source code."""
    last_line: Place | None = None
    language: str | None = None
    """Of code, in lower case, as after a Markdown fence; None where unknown."""
    name: str | None = None
    """Of a function or class, without the classes around it."""
    summary: str | None = None
    """The docstring of a function or class, as its author wrote it, indentation removed."""

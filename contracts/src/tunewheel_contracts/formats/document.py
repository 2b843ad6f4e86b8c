"""The text of a document in sections, each with its position in the document."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field

from tunewheel_contracts.fields import Frozen, SourceId, Text

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
"""RFC 6838 §4.2, in lower case."""


def _media_type(value: str) -> str:
    if not _MEDIA_TYPE.fullmatch(value):
        raise ValueError("is no media type; send type/subtype in lower case, such as text/markdown")
    return value


MediaType = Annotated[str, AfterValidator(_media_type)]
"""A media type. The set is open: ingest has a parser for each type that it reads, and refuses others."""
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
EML = "message/rfc822"
IPYNB = "application/x-ipynb+json"
PROSE_TYPES: Mapping[str, str] = MappingProxyType(
    {
        ".md": "text/markdown",
        ".markdown": "text/markdown",
        ".txt": "text/plain",
        ".html": "text/html",
        ".htm": "text/html",
        ".pdf": "application/pdf",
        ".docx": DOCX,
        ".xlsx": XLSX,
        ".pptx": PPTX,
        ".eml": EML,
        ".ipynb": IPYNB,
    }
)
"""Media type by the ending of a document's id, of the formats that clients publish from folders."""
LANGUAGES: Mapping[str, str] = MappingProxyType(
    {
        ".py": "python",
        ".pyi": "python",
        ".js": "javascript",
        ".mjs": "javascript",
        ".jsx": "jsx",
        ".ts": "typescript",
        ".tsx": "tsx",
        ".java": "java",
        ".kt": "kotlin",
        ".scala": "scala",
        ".go": "go",
        ".rs": "rust",
        ".c": "c",
        ".h": "c",
        ".cc": "cpp",
        ".cpp": "cpp",
        ".hpp": "cpp",
        ".cs": "csharp",
        ".swift": "swift",
        ".rb": "ruby",
        ".php": "php",
        ".pl": "perl",
        ".lua": "lua",
        ".r": "r",
        ".jl": "julia",
        ".sh": "bash",
        ".bash": "bash",
        ".ps1": "powershell",
        ".sql": "sql",
        ".proto": "protobuf",
        ".tf": "hcl",
    }
)
"""Language of source code, as after a Markdown fence, by the ending of a document's id."""


def media_type_of(document_id: str) -> str | None:
    """Return the media type for the ending of ``document_id``; None for an unknown ending."""
    suffix = PurePosixPath(document_id).suffix.lower()
    if LANGUAGES.get(suffix) == "python":
        return "text/x-python"
    return PROSE_TYPES.get(suffix) or ("text/x-source" if suffix in LANGUAGES else None)


def is_text(media_type: str) -> bool:
    """Return whether documents of this type are text. Others are published as files."""
    return media_type.startswith("text/")


Place = Annotated[int, Field(ge=1)]


class DocumentSection(Frozen):
    """One section of a document, in reading order: the prose below one heading, one table, or one piece of
    code. Sections do not overlap; together they contain the document's text."""

    path: tuple[str, ...] = ()
    """The headings above the section, outermost first; for code the enclosing classes."""
    text: Text
    """Prose and tables as Markdown, without the heading itself; code unchanged, without its fence."""
    kind: Literal["prose", "table", "code"] = "prose"
    page: Place | None = None
    """For a PDF: the page, from 1, on which the section begins."""
    first_line: Place | None = None
    """For source code: the lines in the source file, from 1, both ends included."""
    last_line: Place | None = None
    language: str | None = None
    """Language of code, in lower case, as after a Markdown fence; null: unknown."""
    name: str | None = None
    """Name of a function or class, without enclosing classes."""
    summary: str | None = None
    """Docstring of a function or class, without indentation."""


AllowedGroups = Annotated[tuple[SourceId, ...], Field(max_length=64, exclude_if=operator.not_)]
"""Who may see a document's passages: callers of the gateway with one of these groups of the file of keys.
Empty: every caller of the project. Nothing is learnt from a document with groups, because a model's weights
tell everybody."""
ALLOWED_GROUPS = "allowed_groups"
"""The attribute of a record that holds the groups, as a JSON list."""


def with_groups(attributes: Mapping[str, str], groups: Collection[str]) -> dict[str, str]:
    """Return ``attributes`` with the groups of the document, and without any others under that name."""
    own = {name: value for name, value in attributes.items() if name != ALLOWED_GROUPS}
    return own | ({ALLOWED_GROUPS: json.dumps(sorted(set(groups)), ensure_ascii=False)} if groups else {})


def groups_of(attributes: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the groups that may see a document; None: every caller may. Groups that cannot be read are
    nobody's."""
    if ALLOWED_GROUPS not in attributes:
        return None
    try:
        found: Any = json.loads(attributes[ALLOWED_GROUPS])
    except (ValueError, RecursionError):
        return ()
    return tuple(map(str, cast("list[Any]", found))) if isinstance(found, list) else ()

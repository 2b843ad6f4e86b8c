"""Reads source code verbatim. Python is cut into its functions and classes."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tunewheel_contracts.formats.document import LANGUAGES, DocumentSection

from tunewheel_ingest.parsing.document import ParsedDocument, Parser
from tunewheel_ingest.parsing.formats.text import decode_python, read_text
from tunewheel_ingest.parsing.markdown import fenced

Function = ast.FunctionDef | ast.AsyncFunctionDef
_BRANCHING = (ast.If, ast.Try, ast.ExceptHandler, ast.With)
_BRANCHES = ("body", "handlers", "orelse", "finalbody")


@dataclass(frozen=True, slots=True)
class _Piece:
    """Lines ``first`` to ``last`` of a file, from 1, both included."""

    first: int
    last: int
    path: tuple[str, ...] = ()
    name: str | None = None
    summary: str | None = None


def parse_code(text: str, name: str) -> ParsedDocument:
    """Return source code in pieces with their line numbers. The ending of ``name`` tells the language.

    Every other language is one piece, and so is Python that does not parse (another version, a template). The
    title is the whole path.
    """
    language = LANGUAGES.get(PurePosixPath(name).suffix.lower())
    lines = text.split("\n")
    tree = _tree(text) if language == "python" else None
    pieces = _pieces(tree, len(lines)) if tree else [_Piece(1, len(lines))]
    sections = [section for piece in pieces if (section := _section(piece, lines, language))]
    return ParsedDocument(
        markdown=fenced(text.strip("\n"), language), sections=tuple(sections), title=str(PurePosixPath(name))
    )


def _tree(text: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the source may hold invalid escapes
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _pieces(tree: ast.Module, lines: int) -> list[_Piece]:
    """Return the whole file in pieces: the definitions and the lines between them."""
    return list(_fill(_Piece(1, lines, summary=_docstring(tree)), tree.body, ()))


def _fill(whole: _Piece, body: list[ast.stmt], path: tuple[str, ...]) -> Iterator[_Piece]:
    """Yield ``whole`` as the definitions in ``body`` and the lines between them. The first piece that is no
    definition gets the name and the docstring of the whole."""
    start, place, name, summary = whole.first, whole.path, whole.name, whole.summary
    for node in _definitions(body):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        last = node.end_lineno or node.lineno
        if first < start:
            continue  # a second definition on one line, after a semicolon
        if first > start:
            yield _Piece(start, first - 1, place, name, summary)
            place, name, summary = path, None, None
        definition = _Piece(first, last, path, node.name, _docstring(node))
        if isinstance(node, ast.ClassDef):
            yield from _fill(definition, node.body, (*path, node.name))
        else:
            yield definition
        start = last + 1
    if start <= whole.last:
        yield _Piece(start, whole.last, place, name, summary)


def _docstring(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str | None:
    """Return a docstring with its escapes decoded, without lone surrogates, which UTF-8 cannot encode."""
    text = ast.get_docstring(node)
    return text and text.encode("utf-8", "ignore").decode()


def _definitions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Yield functions and classes in order, including those inside ``if`` and ``try``."""
    waiting: list[ast.AST] = [*reversed(body)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function | ast.ClassDef):
            yield node
        elif isinstance(node, _BRANCHING):
            inner = [part for name in _BRANCHES for part in getattr(node, name, ())]
            waiting += inner[::-1]


def _section(piece: _Piece, lines: list[str], language: str | None) -> DocumentSection | None:
    """Return a piece without the blank lines around it; None if it has only blank lines."""
    first, last = piece.first, piece.last
    while first <= last and not lines[first - 1].strip():
        first += 1
    while last >= first and not lines[last - 1].strip():
        last -= 1
    if first > last:
        return None
    return DocumentSection(
        path=piece.path,
        text="\n".join(lines[first - 1 : last]),
        kind="code",
        first_line=first,
        last_line=last,
        language=language,
        name=piece.name,
        summary=piece.summary,
    )


def _read_python(path: Path, name: str) -> ParsedDocument:
    text = _lines_ended(decode_python(path.read_bytes()))
    parsed = parse_code(text, name if name.endswith(".py") else f"{name}.py")
    return parsed.model_copy(update={"title": str(PurePosixPath(name))})


def _lines_ended(text: str) -> str:
    """Return code with LF line ends and without a byte-order mark, otherwise unchanged."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


PYTHON = Parser("text/x-python", _read_python)
SOURCE = Parser(
    "text/x-source", lambda path, name: read_text(path, lambda text: parse_code(_lines_ended(text), name))
)

"""Makes pairs of a documented function and its summary. They train in both directions."""

from __future__ import annotations

import ast
import textwrap
from dataclasses import dataclass

from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_retrieval.sections import markdown_of

LEAST_SUMMARY = 12
LEAST_LINES = 2


@dataclass(frozen=True)
class CodePair:
    """A documented function: its qualified name, its code with and without documentation, and its summary."""

    name: str
    language: str
    code: str
    bare: str
    summary: str


def code_pair(piece: DocumentSection, path: tuple[str, ...]) -> CodePair | str | None:
    """Return the pair in a piece of code. A string says why the pair is not used. None: the piece is no
    documented function."""
    if piece.kind != "code" or piece.name is None or not piece.summary:
        return None
    summary = piece.summary.strip()
    if len(summary) < LEAST_SUMMARY:
        return "summary too short"
    code = textwrap.dedent(piece.text).strip("\n")
    bare = _without_docstring(code) if piece.language == "python" else _without_comment(code, summary)
    if bare is None or summary.split("\n")[0] in bare:
        return "summary not to be told from the code"
    if sum(bool(line.strip()) for line in bare.split("\n")) < LEAST_LINES:
        return "no body"
    fenced = piece.model_copy(update={"text": bare})
    whole = piece.model_copy(update={"text": code})
    name = ".".join([*path, piece.name])
    return CodePair(name, piece.language or "", markdown_of(whole), markdown_of(fenced), summary)


def _without_docstring(code: str) -> str | None:
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not tree.body or not isinstance(tree.body[0], ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return None
    first = tree.body[0].body[0]
    if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
        return None
    lines = code.split("\n")
    return "\n".join(lines[: first.lineno - 1] + lines[(first.end_lineno or first.lineno) :])


def _without_comment(code: str, summary: str) -> str:
    """Return ``code`` without the comment lines that hold the summary."""
    told = {line.strip() for line in summary.split("\n") if line.strip()}
    return "\n".join(line for line in code.split("\n") if line.strip(" \t/*#-!;") not in told)

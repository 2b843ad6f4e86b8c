"""Drafts examples from each section of a document: passages, questions, code with its summary."""

from __future__ import annotations

import ast
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tunewheel_contracts.formats.dataset import ExampleFormat
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.formats.example_formats import DocumentFormats
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_outputs.grounding import grounding, invented
from tunewheel_retrieval.passages import paragraphs, passages_of, sentences
from tunewheel_retrieval.sections import Section, markdown_of

from tunewheel_curate.documents.teaching import Lesson, section_key
from tunewheel_curate.examples.tokens import Tokens

LEAST_SUMMARY = 12
LEAST_LINES = 2


@dataclass(frozen=True)
class CodePair:
    """A documented function: its qualified name, its code with and without documentation, and its summary.
    Models are trained to write the code from the summary, and the summary from the code."""

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
    summary_lines = {line.strip() for line in summary.split("\n") if line.strip()}
    return "\n".join(line for line in code.split("\n") if line.strip(" \t/*#-!;") not in summary_lines)


LEAST_ANSWER = 30
"""A section with less text gives no answer."""
_HOW_TO = re.compile(r"how to (\w)(.*)", re.IGNORECASE | re.DOTALL)
_NUMBERING = re.compile(r"^(?:\d{1,3}(?:\.\d{1,3}){0,5}[.):]?|[A-Za-z][.)])\s+")


def question_about(section: Section) -> str:
    """Return the question that the heading path suggests, where no teacher answers. It is as general as the
    heading, so it teaches the documents' content and wording, but not how people ask."""
    last = _NUMBERING.sub("", section.path[-1]).strip() if section.path else ""
    if last.endswith(("?", "؟", "？")):  # noqa: RUF001
        return last
    if match := _HOW_TO.fullmatch(last.rstrip(".:")):
        rest = match.group(2)
        first = match.group(1) if rest[:1].isupper() else match.group(1).lower()
        return f"How do I {first}{rest}?"
    if section.heading:
        return f'What does "{section.title}" say about "{section.heading}"?'
    return f'What is "{section.title}" about?'


def answer_from(section: Section, tokens: Tokens, *, max_tokens: int) -> str | None:
    """Return the section's first paragraphs of prose within ``max_tokens``, or else its first sentences.
    None: the section is too short, or its first sentence too long."""
    prose = "\n\n".join(piece.text for piece in section.pieces if piece.kind == "prose")
    for joint, parts in (("\n\n", paragraphs(prose)), (" ", sentences(prose))):
        kept: list[str] = []
        room = max_tokens
        for part, size in zip(parts, tokens.sizes(parts), strict=True):
            room -= size + 1
            if room < 0:
                break
            kept.append(part)
        answer = joint.join(kept)
        if sum(character.isalnum() for character in answer) >= LEAST_ANSWER:
            return answer
    return None


LEAST_CHARACTERS = 24
"""A passage with fewer letters and digits is not worth learning."""
_SLACK = 8
"""A reserve, because counting the parts of a text may give fewer tokens than counting the whole."""


def drafts_of(
    sections: list[Section], spec: ProjectSpec, tokens: Tokens, lessons: Mapping[str, Lesson]
) -> Iterator[dict[str, Any]]:
    """Yield the drafts that ``spec`` asks for, as rows of records with a ``place`` and a ``format``. A row
    with a ``reason`` is not good enough for an example."""
    formats = spec.dataset.formats.documents
    numbers = Counter[str]()
    for section in sections:
        found: list[dict[str, Any]] = []
        if formats.chunks.enabled:
            found += _passages(section, spec, tokens)
        if formats.questions.enabled and is_told(section):
            found += _questions(section, formats, tokens, lessons)
        if formats.code.enabled:
            found += _code(section)
        for draft in found:
            number = numbers[section.record_id]
            numbers[section.record_id] += 1
            yield {
                "project": spec.project, "record_id": f"{section.record_id}\n{number:06}", "kind": "document",
                "title": "", "group": section.group, "trust": "unverified", "document": section.record_id,
                "place": section.place, "heading": section.heading, **draft,
            }  # fmt: skip


def is_told(section: Section) -> bool:
    """Return whether a section has prose that one can ask a question about."""
    return any(piece.kind == "prose" for piece in section.pieces)


def _passages(section: Section, spec: ProjectSpec, tokens: Tokens) -> Iterator[dict[str, Any]]:
    formats = spec.dataset.formats.documents
    asked = _request(section, 99, 99)
    around = tokens.conversation_sizes([[formats.system_prompt, asked, ""]])[0] + _SLACK
    budget = max(1, min(formats.chunks.max_tokens, spec.dataset.max_tokens - around))
    passages = passages_of(
        section, tokens.sizes, max_tokens=budget, overlap=min(formats.chunks.overlap, budget // 2)
    )
    for number, passage in enumerate(passages, 1):
        short = sum(character.isalnum() for character in passage) < LEAST_CHARACTERS
        yield {
            "format": ExampleFormat.CHUNK.value,
            "input": _request(section, number, len(passages)),
            "output": passage,
            "reason": "passage too short" if short else None,
        }


def _request(section: Section, number: int, count: int) -> str:
    part = f"part {number} of {count} of " if count > 1 else ""
    if section.heading:
        return f'Quote {part}the section "{section.heading}" of "{section.title}".'
    return f'Quote {part}the beginning of "{section.title}".'


def _questions(
    section: Section, formats: DocumentFormats, tokens: Tokens, lessons: Mapping[str, Lesson]
) -> Iterator[dict[str, Any]]:
    questions = formats.questions
    lesson = lessons.get(section_key(section, questions)) if questions.teacher is not None else None
    if questions.method == "teacher" and lesson is not None:
        assert questions.teacher is not None
        if not lesson.pairs:
            yield _question("", "", "teacher", "teacher gave no readable answer")
        for pair, size in zip(lesson.pairs, tokens.sizes([p.answer for p in lesson.pairs]), strict=True):
            reason = _ungrounded(pair.answer, section, questions.teacher.min_grounding)
            if size > questions.max_answer_tokens:
                reason = "answer too long"
            yield _question(pair.question, pair.answer, "teacher", reason)
        return
    answer = answer_from(section, tokens, max_tokens=questions.max_answer_tokens)
    reason = "section says too little" if answer is None else None
    yield _question(question_about(section), answer or "", "extractive", reason)


def _question(question: str, answer: str, method: str, reason: str | None) -> dict[str, Any]:
    return {
        "format": ExampleFormat.QUESTION.value,
        "input": question,
        "output": answer,
        "attributes": method,
        "reason": reason,
    }


def _ungrounded(answer: str, section: Section, least: float) -> str | None:
    text = f"{section.title}\n{section.heading}\n{section.text}"
    if invented(answer, text) is not None:
        return "ungrounded: a figure or name that the section does not hold"
    return "ungrounded: says more than the section" if grounding(answer, text) < least else None


def _code(section: Section) -> Iterator[dict[str, Any]]:
    for piece in section.pieces:
        pair = code_pair(piece, section.path)
        if isinstance(pair, CodePair):
            what = f"{pair.language.capitalize()} code".strip() if pair.language else "code"
            yield {
                "format": ExampleFormat.CODE_SUMMARY.value,
                "input": f'Summarise `{pair.name}` of "{section.title}":\n\n{pair.bare}',
                "output": pair.summary,
            }
            yield {
                "format": ExampleFormat.CODE_FUNCTION.value,
                "input": f'Write the {what} of `{pair.name}` of "{section.title}":\n\n{pair.summary}',
                "output": pair.code,
            }
        elif pair is not None:
            yield {"format": ExampleFormat.CODE_SUMMARY.value, "input": "", "output": "", "reason": pair}

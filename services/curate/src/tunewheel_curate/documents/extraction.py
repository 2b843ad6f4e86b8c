"""Makes a question from a section's heading and answers it with the section's own sentences, without a model.

This is the weak fallback where no teacher answers. The question is as general as the heading, and the answer
is the beginning of the section. It teaches the documents' content and wording, but not how people ask.
"""

from __future__ import annotations

import re

from tunewheel_retrieval.passages import paragraphs, sentences
from tunewheel_retrieval.sections import Section

from tunewheel_curate.examples.tokens import Tokens

LEAST_CHARACTERS = 30
"""A section with less text gives no answer."""
_HOW_TO = re.compile(r"how to (\w)(.*)", re.IGNORECASE | re.DOTALL)
_NUMBERING = re.compile(r"^(?:\d{1,3}(?:\.\d{1,3}){0,5}[.):]?|[A-Za-z][.)])\s+")


def question_about(section: Section) -> str:
    """Return the question that the heading path suggests."""
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
        if sum(character.isalnum() for character in answer) >= LEAST_CHARACTERS:
            return answer
    return None

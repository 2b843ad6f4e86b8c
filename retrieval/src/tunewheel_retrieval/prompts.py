"""Makes prompts with passages. The gateway, curate and eval all use it, so that a model sees the same prompts
in serving, training and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec

from tunewheel_retrieval.context import with_passages
from tunewheel_retrieval.hits import Hit

LONGEST_QUESTION = 4_000
"""How many characters of a question are used for the search. The model gets the whole question."""
Message = Mapping[str, Any]
"""A message with ``role``, ``content`` and any other fields of the client."""


def question_of(messages: Sequence[Message]) -> str:
    """Return the text to search for: the beginning of the user's last message; "" if there is none."""
    said = (one["content"] for one in reversed(messages) if one["role"] == "user")
    return (next(said, None) or "")[:LONGEST_QUESTION]


def questions_of(spec: RetrievalSpec, messages: Sequence[Message]) -> tuple[str, ...]:
    """Return the texts to search for, as ``spec.question`` says: the user's last message, and perhaps it
    together with the one before."""
    last = question_of(messages)
    earlier = [one for one in messages if one["role"] == "user"][:-1]
    if spec.question == "last" or not earlier or not last:
        return (last,)
    return last, f"{question_of(earlier)}\n{last}"


def without_last(spec: RetrievalSpec, hits: Sequence[Hit]) -> tuple[Hit, ...] | None:
    """Return ``hits`` without the last passage, for a prompt that exceeds the model's context. None: ``spec``
    allows no fewer passages, and no answer is better than one without them."""
    fewest = 1 if spec.when_unavailable == "refuse" else 0
    return tuple(hits[:-1]) if len(hits) > fewest else None


def context_of(spec: RetrievalSpec, hits: Sequence[Hit]) -> str:
    """Return the part of a prompt that holds ``hits``: the spec's template with each passage in a fence; ""
    if there is no hit."""
    return with_passages(spec.template, hits) if hits else ""


def with_context(messages: Sequence[Message], context: str) -> list[dict[str, Any]]:
    """Return a copy of ``messages`` with ``context`` at the end of the first system message. If there is
    none, a system message with ``context`` is put before all others. An empty ``context`` adds nothing."""
    told = [dict(message) for message in messages]
    if not context:
        return told
    system = next((message for message in told if message["role"] == "system"), None)
    if system is None:
        return [{"role": "system", "content": context}, *told]
    said = system["content"] or ""
    system["content"] = f"{said}\n\n{context}" if said else context
    return told

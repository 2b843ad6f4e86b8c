"""How a prompt with passages is made, in one place: the gateway serves by it, curate trains and eval judges
by it, so that all three show a model the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec

from tunewheel_retrieval.context import fit, with_passages
from tunewheel_retrieval.hits import Hit

if TYPE_CHECKING:  # the gateway makes prompts before it has loaded numpy
    from tunewheel_embedding.static import Vectors

    from tunewheel_retrieval.index import Index

LONGEST_QUESTION = 4_000
"""Characters that are searched for; what follows them is for the model alone."""
Message = Mapping[str, Any]
"""``role`` and ``content``, and what else a client sends."""


def question_of(messages: Sequence[Message]) -> str:
    """Return what is searched for: the beginning of the user's last message; "" where no user says
    anything."""
    said = (one["content"] for one in reversed(messages) if one["role"] == "user")
    return (next(said, None) or "")[:LONGEST_QUESTION]


def look_up(index: Index, spec: RetrievalSpec, question: str, vector: Vectors | None) -> tuple[Hit, ...]:
    """Return the passages that go with ``question``, the best first: those of the best ``spec.top_k`` that
    fit into ``spec.budget_tokens``.

    ``vector`` is the question's own, (dimensions,), by the embedder of the index; None: words alone."""
    return fit(index.search(question, vector, spec.top_k), budget=spec.budget_tokens)


def without_last(spec: RetrievalSpec, hits: Sequence[Hit]) -> tuple[Hit, ...] | None:
    """Return ``hits`` without the last passage, for a prompt that the model's context does not hold; None
    where ``spec`` allows no fewer: rather no answer than one without passages."""
    fewest = 1 if spec.when_unavailable == "refuse" else 0
    return tuple(hits[:-1]) if len(hits) > fewest else None


def context_of(spec: RetrievalSpec, hits: Sequence[Hit]) -> str:
    """Return what a prompt says of ``hits``: the spec's template with each passage in its fence; "" where
    there is none."""
    return with_passages(spec.template, hits) if hits else ""


def with_context(messages: Sequence[Message], context: str) -> list[dict[str, Any]]:
    """Return ``messages`` with ``context`` at the end of the first system message, whoever wrote it, or in a
    system message before all others. ``messages`` themselves stay; without ``context`` a copy is returned."""
    told = [dict(message) for message in messages]
    if not context:
        return told
    system = next((message for message in told if message["role"] == "system"), None)
    if system is None:
        return [{"role": "system", "content": context}, *told]
    said = system["content"] or ""
    system["content"] = f"{said}\n\n{context}" if said else context
    return told

"""The passages that were found for one request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tunewheel_contracts.formats.index import RetrievalUse
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_retrieval.context import sources, sources_header, sources_text
from tunewheel_retrieval.hits import Hit
from tunewheel_retrieval.prompts import context_of, without_last

from tunewheel_serve_gateway.errors import Headers

INDEX_HEADER = b"x-tunewheel-index"
SOURCES_HEADER = b"x-tunewheel-sources"
NO_INDEX = b"none"


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The passages for one request. Shadow copies and second attempts use the same passages."""

    context: str
    """Text of the passages, for the system message; "": no passage was found, or there was no index."""
    citation: str
    """Text that is appended to an answer in plain text; "": the spec asks for no citation in answers."""
    headers: Headers
    use: RetrievalUse | None
    """The record of the retrieval for the completion log; None: there was no index."""
    fewer: Callable[[], Retrieved] | None = field(default=None, compare=False)
    """Returns the same without the last passage, for a prompt that is too long. None: no passage can be
    dropped."""


WITHOUT_INDEX = Retrieved("", "", [(INDEX_HEADER, NO_INDEX)], None)


def retrieved(
    spec: RetrievalSpec,
    index_id: str,
    hits: tuple[Hit, ...],
    *,
    embedded: bool,
    built_for: str | None,
    milliseconds: float,
) -> Retrieved:
    """Return prompt text, citation, headers and log record for ``hits``, the passages that fit the budget.

    ``embedded``: whether the question had a vector. ``built_for``: the hash of the spec for which the index
    was built. The similarity is logged only where both are as ``spec`` has it; otherwise it cannot be
    compared.
    """
    sha256 = spec.sha256
    is_comparable = embedded and built_for == sha256
    use = RetrievalUse(
        index_id=index_id,
        passage_ids=tuple(hit.passage.passage_id for hit in hits),
        scores=tuple(hit.score for hit in hits),
        milliseconds=milliseconds,
        similarity=max((hit.similarity or 0.0 for hit in hits), default=0.0) if is_comparable else None,
        retrieval_sha256=sha256,
    )
    return _with_passages(spec, hits, use)


def _with_passages(spec: RetrievalSpec, hits: tuple[Hit, ...], use: RetrievalUse) -> Retrieved:
    cited = sources(hits)
    fewer = without_last(spec, hits)
    return Retrieved(
        context_of(spec, hits),
        sources_text(cited) if spec.cite == "answer" else "",
        [(INDEX_HEADER, use.index_id.encode()), (SOURCES_HEADER, sources_header(cited).encode())],
        use,
        None if fewer is None else partial(_shorter, spec, fewer, use),
    )


def _shorter(spec: RetrievalSpec, fewer: tuple[Hit, ...], use: RetrievalUse) -> Retrieved:
    """Return the same with fewer passages. The similarity stays: it describes how well the documents fit the
    question, not the prompt."""
    kept = {"passage_ids": use.passage_ids[: len(fewer)], "scores": use.scores[: len(fewer)]}
    return _with_passages(spec, fewer, use.model_copy(update=kept))


def cite(answer: dict[str, Any], citation: str) -> None:
    """Append ``citation`` to each finished text in ``answer``. In a stream it is added to the chunk that ends
    the text. Tool calls stay unchanged."""
    if not citation:
        return
    for choice in answer.get("choices") or ():
        if choice.get("finish_reason") in ("stop", "length"):
            said = choice.setdefault("delta" if "message" not in choice else "message", {})
            said["content"] = (said.get("content") or "") + citation

"""What was looked up for one request."""

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
    """A canary, the shadow copy and a second attempt are given the same."""

    context: str
    """For the system message; "": nothing was found, or nothing could be looked up."""
    citation: str
    """For the end of an answer in plain text; "": the spec does not ask for it there."""
    headers: Headers
    use: RetrievalUse | None
    """For the log; None: there was no index."""
    fewer: Callable[[], Retrieved] | None = field(default=None, compare=False)
    """The same without the last passage, for a prompt that is too long; None: it holds as few as the spec
    allows."""


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
    """Return what becomes of ``hits``, the passages that fit. ``embedded``: the question had a vector.
    ``built_for``: the hash of the spec that the index is for. How near passages of another lie says nothing
    under ``spec``."""
    sha256 = spec.sha256
    told = embedded and built_for == sha256
    use = RetrievalUse(
        index_id=index_id,
        passage_ids=tuple(hit.passage.passage_id for hit in hits),
        scores=tuple(hit.score for hit in hits),
        milliseconds=milliseconds,
        similarity=max((hit.similarity or 0.0 for hit in hits), default=0.0) if told else None,
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
    """How well the documents fit the question does not depend on how many passages a prompt holds."""
    told = {"passage_ids": use.passage_ids[: len(fewer)], "scores": use.scores[: len(fewer)]}
    return _with_passages(spec, fewer, use.model_copy(update=told))


def cite(answer: dict[str, Any], citation: str) -> None:
    """Put ``citation`` at the end of each whole text in ``answer``: of a stream, into the chunk that ends it.
    Calls of tools stay as they are."""
    if not citation:
        return
    for choice in answer.get("choices") or ():
        if choice.get("finish_reason") in ("stop", "length"):
            said = choice.setdefault("delta" if "message" not in choice else "message", {})
            said["content"] = (said.get("content") or "") + citation

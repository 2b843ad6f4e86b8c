"""Searches an index for a question as the gateway does in serving. The gateway, curate and eval all use it,
so that a model is trained and judged with the passages that it will get.

1. A blank question finds nothing.
2. A question is searched by words alone if it has no vector: the index was built by another embedder than the
   spec names, or the embedder refuses the question or is away.
3. Else it is searched by words and by its vector.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, NamedTuple

from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.formats.index import IndexManifest
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_embedding.errors import EmbeddingRefused

from tunewheel_retrieval.context import fit
from tunewheel_retrieval.hits import Hit

if TYPE_CHECKING:  # the gateway asks before it has loaded numpy
    from tunewheel_embedding.embedders import Embedder
    from tunewheel_embedding.static import Vectors

    from tunewheel_retrieval.index import Index


SHOWN = 12
"""How many passages ``explain`` returns, if ``top_k`` is not more."""


class WhyNot(StrEnum):
    """Why a question has no vector."""

    BLANK = "blank"
    EMBEDDER = "embedder"
    """The index was built by another embedder than the spec names."""
    REFUSED = "refused"
    """The embedder refuses this question, or the spec names one that is not allowed here."""
    AWAY = "away"
    """The embedder does not answer."""


Asked = tuple[str, "Vectors | WhyNot"]
"""A text to search for, and its vector, (dimensions,), by the index's embedder, or why it has none."""


def look_up(
    index: Index, spec: RetrievalSpec, asked: Sequence[Asked], groups: Collection[str] = ()
) -> tuple[tuple[Hit, ...], WhyNot | None]:
    """Return the passages for ``prompts.questions_of``, the best first, and why those for the first text were
    found by words alone. They are the best ``spec.top_k``, taken from each text in turn, that are above the
    floor, if the spec asks for one, and fit into ``spec.budget_tokens``. ``groups``: of the caller, who sees
    no passage that is for others."""
    rankings = [_above_floor(index, spec, one, groups) for one in asked]
    hits: dict[str, Hit] = {}
    for hit in chain.from_iterable(zip_longest(*rankings)):
        if hit is not None:
            hits.setdefault(hit.passage.passage_id, hit)
    best, why_not = list(hits.values())[: spec.top_k], asked[0][1]
    return fit(best, budget=spec.budget_tokens), why_not if isinstance(why_not, WhyNot) else None


def _above_floor(index: Index, spec: RetrievalSpec, asked: Asked, groups: Collection[str]) -> tuple[Hit, ...]:
    hits, floor = passages_for(index, *asked, spec.top_k, groups), floor_of(index, spec, asked)
    return hits if floor is None else tuple(hit for hit in hits if hit.fit > floor)


def floor_of(index: Index, spec: RetrievalSpec, asked: Asked) -> float | None:
    """Return the fit above which a passage enters a prompt; None: the spec asks for no floor."""
    floors = index.manifest.floors
    if spec.floor == "none" or floors is None:
        return None
    return floors.by_words if isinstance(asked[1], WhyNot) else floors.with_vector


class Explained(NamedTuple):
    """A passage that a question finds."""

    hit: Hit
    passes: bool
    """Whether the floor lets it pass."""
    sent: bool
    """Whether ``look_up`` returns it."""


def explain(index: Index, spec: RetrievalSpec, asked: Asked, groups: Collection[str] = ()) -> list[Explained]:
    """Return the passages for one text, the best first, and what becomes of each: also those of less rank
    than ``spec.top_k`` and below the floor, up to ``SHOWN``."""
    sent = {hit.passage.passage_id for hit in look_up(index, spec, [asked], groups)[0]}
    floor = floor_of(index, spec, asked)
    return [
        Explained(hit, floor is None or hit.fit > floor, hit.passage.passage_id in sent)
        for hit in passages_for(index, *asked, max(SHOWN, spec.top_k), groups)
    ]


def passages_for(
    index: Index, question: str, vector: Vectors | WhyNot, k: int, groups: Collection[str] = ()
) -> tuple[Hit, ...]:
    """Return the ``k`` best passages for ``question`` that a caller with ``groups`` may see, the best first;
    none for a blank question."""
    if not question.strip():
        return ()
    return index.search(question, None if isinstance(vector, WhyNot) else vector, k, groups)


def vectors_of(
    manifest: IndexManifest, embedder: Embedder | None, questions: Sequence[str]
) -> list[Vectors | WhyNot]:
    """Return each question's vector, (dimensions,), or why it has none.

    ``embedder`` None: an endpoint that is not asked, as if it were away.

    Raises:
        EndpointAway: the endpoint does not answer.
        EmbeddingRefused: the endpoint refuses every question.
    """
    if embedder is None or manifest.embedding != embedder.name:
        return [WhyNot.EMBEDDER if embedder is not None else WhyNot.AWAY] * len(questions)
    asked = [question for question in questions if question.strip()]
    found = iter(_vectors(embedder, asked) if asked else ())
    return [next(found) if question.strip() else WhyNot.BLANK for question in questions]


def _vectors(embedder: Embedder, questions: Sequence[str]) -> list[Vectors | WhyNot]:
    try:
        return list(embedder.units(questions))
    except EmbeddingRefused as error:
        if not error.may_be_one_text:
            raise
    return [_vector(embedder, question) for question in questions]


def _vector(embedder: Embedder, question: str) -> Vectors | WhyNot:
    try:
        return embedder.units([question])[0]
    except EmbeddingRefused as error:
        return why_not(error)


def why_not(error: Exception) -> WhyNot:
    """Return what an embedder's ``error`` means for one question."""
    return WhyNot.AWAY if isinstance(error, TransientError | TimeoutError) else WhyNot.REFUSED

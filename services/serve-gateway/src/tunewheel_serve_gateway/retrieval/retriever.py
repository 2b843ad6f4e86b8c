"""Finds the passages of a project's documents for a question."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import structlog
from tunewheel_contracts.api.documents import FoundPassage, PassageSearch
from tunewheel_contracts.formats.retrieval_spec import EndpointEmbedding, RetrievalSpec
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_retrieval.prompts import Message, context_of, questions_of
from tunewheel_retrieval.search import Asked, Explained, WhyNot, explain, floor_of, look_up
from tunewheel_runtime.store import ObjectStore

from tunewheel_serve_gateway.errors import BadRequest, Unavailable
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.retrieval.embedders import Embedders
from tunewheel_serve_gateway.retrieval.indexes import Indexes
from tunewheel_serve_gateway.retrieval.retrieved import WITHOUT_INDEX, Retrieved, retrieved
from tunewheel_serve_gateway.settings import Settings

if TYPE_CHECKING:
    from tunewheel_retrieval.index import Index

log = structlog.get_logger(__name__)
T = TypeVar("T")
Switch = Literal["on", "off"]
SEARCHES = 2
"""Number of threads for searches that are not run on the event loop."""
SHORT_SEARCH = 12_000 * 384
"""Largest index, in vector components, that is searched on the event loop: 12,000 passages of the static
embedder. The search takes a millisecond. A thread would take longer, because it competes with the event loop
for the interpreter's lock."""
SHORT_QUESTION = 500
"""Longest question, in characters, that is embedded on the event loop."""


@dataclass
class Retriever:
    """Retrieves passages as a project's spec asks. ``spec_of`` returns a project's present spec."""

    indexes: Indexes
    embedders: Embedders
    spec_of: Callable[[str], ProjectSpec | None]
    metrics: Metrics

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(SEARCHES, thread_name_prefix="retrieval")

    async def close(self) -> None:
        await self.indexes.close()
        await self.embedders.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def spec(self, project: str) -> RetrievalSpec | None:
        spec = self.spec_of(project)
        return spec.retrieval if spec is not None else None

    def most_tokens(self, project: str, asked: Switch | None) -> int:
        """Return the most tokens of passages that a prompt may get."""
        spec = self.spec(project)
        return spec.budget_tokens if spec is not None and (asked or spec.default) == "on" else 0

    def is_declared(self, project: str, asked: Switch | None) -> bool:
        """Return whether ``asked`` is absent or equals the default of the project's spec."""
        spec = self.spec(project)
        return asked is None or asked == (spec.default if spec is not None else "off")

    async def retrieve(
        self, project: str, messages: Sequence[Message], asked: Switch | None, groups: Collection[str] = ()
    ) -> Retrieved | None:
        """Return the passages for the conversation of a caller with ``groups``; None: no retrieval is asked
        for.

        Raises:
            BadRequest: the client asks for retrieval, but the project declares none.
            Unavailable: there is no index, and the spec has ``when_unavailable: refuse``.
        """
        spec = self.spec(project)
        if spec is None:
            if asked == "on":
                reason = f"project {project} declares no retrieval; leave retrieval out, or declare it there"
                raise BadRequest(reason, param="retrieval", code="invalid_value")
            return None
        questions = questions_of(spec, messages)
        if (asked or spec.default) == "off" or not questions[0].strip():
            return None
        index = self.indexes.of(project)
        if index is None:
            return self._without(project, spec)
        try:
            found = await self._look_up(spec, index, questions, self.indexes.built_for(project), groups)
        except Exception:  # An error in the search must not stop the answer.
            log.exception("retrieval_failed", project=project, index_id=index.manifest.index_id)
            return self._without(project, spec)
        self.metrics.add("retrieval.answered")
        return found

    def _without(self, project: str, spec: RetrievalSpec) -> Retrieved:
        self.metrics.add("retrieval.unavailable")
        if spec.when_unavailable == "refuse":
            raise Unavailable(
                f"the documents of project {project} cannot be searched yet; try again shortly, or send "
                "retrieval: off",
                param="retrieval",
                retry_after="2",
            )
        return WITHOUT_INDEX

    async def explain(self, project: str, question: str, groups: Collection[str]) -> PassageSearch | None:
        """Return what ``question`` finds for a caller with ``groups``, and why; None: there is no index, or
        the project declares no retrieval."""
        from tunewheel_retrieval.words import marks_of

        spec, index = self.spec(project), self.indexes.of(project)
        if spec is None or index is None:
            return None
        started = time.perf_counter()

        def search(asked: list[Asked]) -> PassageSearch:
            found = explain(index, spec, asked[0], groups)
            sent = [one.hit for one in found if one.sent]
            floor, why_not = floor_of(index, spec, asked[0]), asked[0][1]
            return PassageSearch(
                project=project,
                question=question,
                index_id=index.manifest.index_id,
                passages=tuple(_told(one, floor, marks_of(one.hit.passage.text, question)) for one in found),
                top_k=spec.top_k,
                floor=floor,
                budget_tokens=spec.budget_tokens,
                tokens=sum(hit.passage.tokens for hit in sent),
                by_words_alone=why_not if isinstance(why_not, WhyNot) else None,
                context=context_of(spec, sent),
                milliseconds=round((time.perf_counter() - started) * 1000, 3),
            )

        return await self._searched(spec, index, [question], search)

    async def _look_up(
        self,
        spec: RetrievalSpec,
        index: Index,
        questions: Sequence[str],
        built_for: str | None,
        groups: Collection[str],
    ) -> Retrieved:
        started = time.perf_counter()
        hits, why_not = await self._searched(
            spec, index, questions, lambda asked: look_up(index, spec, asked, groups)
        )
        if why_not is not None:
            self.metrics.add("retrieval.by_words")
        taken = (time.perf_counter() - started) * 1000
        fits = why_not is None and len(index.rows) > 0  # An empty index gives no similarity.
        index_id = index.manifest.index_id
        return retrieved(
            spec, index_id, hits, embedded=fits, built_for=built_for, milliseconds=round(taken, 3)
        )

    async def _searched(
        self,
        spec: RetrievalSpec,
        index: Index,
        questions: Sequence[str],
        search: Callable[[list[Asked]], T],
    ) -> T:
        """Embed ``questions``, and return what ``search`` returns for them. A long search runs in a
        thread."""
        embedding, manifest = spec.embedding, index.manifest
        vectors = None
        if isinstance(embedding, EndpointEmbedding):
            asking = (self.embedders.by_endpoint(embedding, manifest, one) for one in questions)
            vectors = await asyncio.gather(*asking)

        def run() -> T:
            own = vectors or [self.embedders.by_table(manifest, one) for one in questions]
            return search(list(zip(questions, own, strict=True)))

        if (
            len(index.rows) * manifest.dimensions <= SHORT_SEARCH
            and sum(map(len, questions)) <= SHORT_QUESTION
        ):
            return run()
        return await asyncio.get_running_loop().run_in_executor(self._threads, run)


def _told(one: Explained, floor: float | None, marks: tuple[tuple[int, int], ...]) -> FoundPassage:
    passage, ranks = one.hit.passage, (*one.hit.ranks, None, None)
    same = ("passage_id", "document_id", "record_id", "title", "heading", "text", "tokens")
    return FoundPassage(
        **{name: getattr(passage, name) for name in same},
        score=one.hit.score,
        words_rank=ranks[0],
        words_score=one.hit.words,
        vector_rank=ranks[1],
        similarity=one.hit.similarity,
        fit=None if floor is None else one.hit.fit,
        passes=one.passes,
        sent=one.sent,
        marks=marks,
    )


def make_retriever(
    settings: Settings, store: ObjectStore, spec_of: Callable[[str], ProjectSpec | None], metrics: Metrics
) -> Retriever:
    """Build the retriever from the settings."""
    embedders = Embedders(settings.spec_hosts, seconds=settings.vector_seconds)

    def is_wanted(project: str) -> bool:
        spec = spec_of(project)
        return spec is not None and spec.retrieval is not None

    # the first question must not wait until the table of the static embedder is loaded
    indexes = Indexes(store, metrics, is_wanted, partial(embedders.by_table, text="ready"))
    return Retriever(indexes, embedders, spec_of, metrics)

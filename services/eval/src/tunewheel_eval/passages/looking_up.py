"""Looks passages up for held-out questions, in the same way as the gateway does for requests."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain, islice

import structlog
from tunewheel_contracts.errors import InvalidEvent, InvalidSpec, TransientError, TunewheelError
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_embedding.embedders import PROBE, Embedder, Embedders, FromThread
from tunewheel_embedding.errors import EmbeddingRefused, EndpointAway
from tunewheel_outputs.grounding import figures_in, grounding, statements
from tunewheel_outputs.texts import said_before
from tunewheel_retrieval.hits import Passage
from tunewheel_retrieval.index import DEPTH, BrokenIndex, Index
from tunewheel_retrieval.opening import is_deleted, open_index
from tunewheel_retrieval.prompts import questions_of
from tunewheel_retrieval.search import WhyNot, look_up, passages_for, vectors_of
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.errors import PassagesAway
from tunewheel_eval.passages.looked_up import Found, LookedUp
from tunewheel_eval.passages.staleness import Changes

log = structlog.get_logger(__name__)

GROUNDED = 0.75
"""The gold passage must have at least this share of the answer's words."""
CANDIDATES = 20


def gold_passages(examples: Iterable[ChatExample], index: Index) -> dict[str, Passage]:
    """Return the gold passages by example id: the passage that answers a held-out question. Examples without
    a known one are left out.

    An example that was drafted from a document names its record. For any other example it is the passage on
    which the expert's answer rests: a passage with the answer's numbers, and with more of its words than any
    passage of another document has. It is searched by the answer's words, not by the question's. Otherwise
    the measured quality of retrieval would depend on retrieval itself.
    """
    of_record: defaultdict[str, list[Passage]] = defaultdict(list)
    for passage in index.rows:
        of_record[passage.record_id].append(passage)
    found: dict[str, Passage] = {}
    for example in examples:
        said = statements(example.messages[-1].content)
        drafted = [passage for record in example.record_ids for passage in of_record.get(record, ())]
        gold = _best(said, drafted)[0] if drafted else _grounding(example, said, index)
        if gold is not None:
            found[example.example_id] = gold
    return found


def _grounding(example: ChatExample, said: str, index: Index) -> Passage | None:
    if not said:
        return None
    hits = index.search(said, None, CANDIDATES)
    gold, share, second = _best(said, [hit.passage for hit in hits])
    if gold is None or share < GROUNDED or second >= share:
        return None
    read_before = f"{gold.searched}\n{said_before(example.messages[:-1])}"
    return gold if figures_in(said) <= figures_in(read_before) else None


def _best(said: str, passages: Sequence[Passage]) -> tuple[Passage | None, float, float]:
    """Return the passage with most words of ``said``, its share of the words, and the largest share among
    passages of other documents."""
    shares = [(grounding(said, passage.searched), passage) for passage in passages]
    share, best = max(shares, key=lambda one: one[0], default=(0.0, None))
    others = [one for one, passage in shares if best and passage.document_id != best.document_id]
    return best, share, max(others, default=0.0)


EMBEDDING, INDEX = "dataset.spec.retrieval.embedding", "plan.index"
"""The fields that errors name."""


class LookUp:
    """Opens index versions and searches them. ``allowed``: the hosts that may be asked for embeddings."""

    def __init__(self, store: ObjectStore, allowed: AllowedSources) -> None:
        self._store = store
        self._embedders = Embedders(allowed)

    async def close(self) -> None:
        await self._embedders.close()

    async def of(
        self,
        plan: EvaluationPlan,
        spec: RetrievalSpec | None,
        examples: Sequence[ChatExample],
        *,
        before: ArtifactRef | None = None,
        needed: bool = False,
    ) -> LookedUp | None:
        """Search the index of ``plan`` for ``examples``; None: the plan has no index.

        ``before``: the manifest of the index version at the time when the answers were written. ``needed``: a
        criterion depends on the search result, even if prompts have no passages.

        Raises:
            InvalidEvent: the verdict depends on passages, and the index cannot be searched. PassagesAway: the
            verdict depends on passages, and the endpoint for embeddings does not answer or the
                index was deleted.
            TransientError: the store does not answer.
        """
        if plan.index is None or plan.index_id is None or spec is None:
            return None
        rests = needed or spec.default == "on"
        try:
            now = await open_index(self._store, plan.index)
            embedder = await self._embedders.of(spec.embedding)
            old = await self._before(before) if before is not None and before != plan.index else None
            try:
                return await asyncio.to_thread(_look_up_all, now, spec, examples, embedder, old)
            except EndpointAway as error:
                if not rests:
                    return _not_looked_up(plan, spec, error)
                raise PassagesAway(
                    f"no vectors of its questions: {error}",
                    field=EMBEDDING,
                    ask_again=partial(_probe, embedder),
                ) from error
        except (TransientError, PassagesAway):
            raise
        except TunewheelError as error:
            # an erasure may delete the newest version before the next one is built
            if rests and await is_deleted(self._store, plan.index):
                raise PassagesAway(f"no index: {error}", field=INDEX) from error
            if rests:  # a retry would fail in the same way
                field = EMBEDDING if isinstance(error, InvalidSpec) else INDEX
                reason = f"cannot be searched: {error}; mend that, and have the run judged again"
                raise InvalidEvent(field=field, reason=reason) from error
            return _not_looked_up(plan, spec, error)

    async def works(self, plan: EvaluationPlan, spec: RetrievalSpec | None) -> bool:
        """Return whether passages can be looked up now. Raises TransientError: the store does not answer."""
        if plan.index is None or spec is None:
            return False
        try:
            await open_index(self._store, plan.index)
            await _probe(await self._embedders.of(spec.embedding))
        except (EndpointAway, EmbeddingRefused, BrokenIndex, InvalidSpec):
            return False
        return True

    async def _before(self, ref: ArtifactRef) -> Index | None:
        try:
            return await open_index(self._store, ref)
        except BrokenIndex as error:  # the index service keeps only a few versions
            log.info("old_index_gone", manifest=ref.path, reason=str(error))
            return None


async def _probe(embedder: Embedder) -> None:
    """Ask an endpoint for an embedding, on the event loop. The time-out may be a minute, and a thread that
    waits would be missing for the running evaluation."""
    if isinstance(embedder, FromThread):
        await embedder.endpoint.units([PROBE])


def _not_looked_up(plan: EvaluationPlan, spec: RetrievalSpec, error: TunewheelError) -> LookedUp:
    log.warning("not_looked_up", run_id=plan.run_id, index_id=plan.index_id, reason=str(error))
    return LookedUp(str(plan.index_id), spec, reason=str(error))


def _look_up_all(
    now: Index, spec: RetrievalSpec, examples: Sequence[ChatExample], embedder: Embedder, before: Index | None
) -> LookedUp:
    asked = [questions_of(spec, [m.model_dump() for m in one.messages[:-1]]) for one in examples]
    questions = list(chain.from_iterable(asked))
    vectors = vectors_of(now.manifest, embedder, questions)
    each = iter(zip(questions, vectors, strict=True))
    if refused := sum(vector is WhyNot.REFUSED for vector in vectors):
        log.warning("questions_not_embedded", index_id=now.manifest.index_id, questions=refused)
    gold = gold_passages(examples, before or now)
    changes = Changes(before, now) if before is not None else None
    found: dict[str, Found] = {}
    for example, texts in zip(examples, asked, strict=True):
        found_by = list(islice(each, len(texts)))
        ranking = passages_for(now, *found_by[0], DEPTH)
        own = gold.get(example.example_id)
        document = own.document_id if own is not None else None
        if own is not None and changes is not None:
            document = changes.name_now(own)
        places = [n for n, hit in enumerate(ranking, 1) if hit.passage.document_id == document]
        found[example.example_id] = Found(
            hits=look_up(now, spec, found_by)[0],
            document=document,
            rank=places[0] if places else None,
            change=changes.of(example, own) if changes is not None and own is not None else None,
        )
    return LookedUp(
        now.manifest.index_id,
        spec,
        found,
        before_id=changes.before_id if changes is not None else None,
        documents_changed=len(changes.documents) if changes is not None else 0,
    )

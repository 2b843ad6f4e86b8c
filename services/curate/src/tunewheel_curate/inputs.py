"""The inputs of a build other than the records and the spec, among them the index with the passages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import TeacherUse
from tunewheel_contracts.formats.retrieval_spec import Embedding, StaticEmbedding
from tunewheel_contracts.judgements import NOBODY_JUDGED, Judged
from tunewheel_contracts.withdrawals import Withdrawal
from tunewheel_retrieval.index import BrokenIndex, Index
from tunewheel_retrieval.opening import open_index
from tunewheel_runtime.store import ObjectStore

from tunewheel_curate.documents.teaching import Lesson
from tunewheel_curate.errors import SourceAway
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts
from tunewheel_curate.examples.tokens import Tokens, estimating
from tunewheel_curate.holdout.memory import HoldoutMemory
from tunewheel_curate.replay.mixing import ReplayPool

if TYPE_CHECKING:
    from tunewheel_embedding.embedders import Embedder


@dataclass(frozen=True)
class OpenIndex:
    """An index in memory, and the embedder for questions to it."""

    index: Index
    manifest: ArtifactRef
    embedder: Embedder | None = None
    """None: the spec names an endpoint, and search uses words alone, as the gateway does while the endpoint
    is away. An endpoint may give other vectors tomorrow, but building a version again must give the same
    bytes."""

    @property
    def index_id(self) -> str:
        return self.index.manifest.index_id


async def open_for_build(store: ObjectStore, ref: ArtifactRef, embedding: Embedding) -> OpenIndex:
    """Open the version whose manifest ``ref`` names.

    Raises:
        SourceAway: it is missing or damaged. The next attempt takes the newest index.
        TransientError: the store is away.
    """
    try:
        index = await open_index(store, ref)
    except BrokenIndex as error:
        raise SourceAway(f"the index at {ref.path} cannot be read: {error}") from error
    from tunewheel_embedding.static import StaticEmbedder

    return OpenIndex(index, ref, StaticEmbedder() if isinstance(embedding, StaticEmbedding) else None)


NOT_ASKED = "no tokenizer was asked for"


@dataclass(frozen=True)
class Pinned:
    """Inputs that are not on the log. See ``builds/pinned_inputs.py``."""

    tokens: Tokens = field(default_factory=lambda: estimating("", NOT_ASKED))
    lessons: Mapping[str, Lesson] = field(default_factory=dict)
    teacher: TeacherUse | None = None
    secret: str = field(default="", repr=False)
    """The key of pseudonyms. Without a key pseudonyms are plain hashes, which anybody can compute."""


@dataclass(frozen=True)
class Inputs:
    """All inputs of a build other than the records and the spec."""

    withdrawals: tuple[Withdrawal, ...] = ()
    judged: Judged = NOBODY_JUDGED
    """People's decisions about records in quarantine."""
    memory: HoldoutMemory = field(default_factory=HoldoutMemory)
    """The memory of the project's previous version."""
    replay: ReplayPool | None = None
    """The conversations of ``dataset.replay``. None: the spec names no source."""
    benchmarks: tuple[BenchmarkTexts, ...] = ()
    """Examples that overlap one of them do not train."""
    pinned: Pinned = field(default_factory=Pinned)
    """The base model's tokenizer and the teacher's questions and answers about documents."""
    index: OpenIndex | None = None
    """The index whose passages go into prompts. None: the spec trains without passages."""

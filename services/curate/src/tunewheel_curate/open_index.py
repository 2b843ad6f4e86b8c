"""The index version that a build takes passages from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.retrieval_spec import Embedding, StaticEmbedding
from tunewheel_retrieval.index import BrokenIndex, Index
from tunewheel_retrieval.opening import open_index
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_curate.errors import SourceAway

if TYPE_CHECKING:
    from tunewheel_embedding.static import Vectors


@dataclass(frozen=True)
class OpenIndex:
    """An index in memory, and the embedder for questions to it."""

    index: Index
    manifest: ArtifactRef
    units: Callable[[Sequence[str]], Vectors] | None = None
    """Embeds questions as the passages were embedded: (questions, dimensions). None: the index was embedded
    by an endpoint, and search uses words alone, as the gateway does while the endpoint is away. An endpoint
    may give other vectors tomorrow, but building a version again must give the same bytes."""

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
    except (ArtifactMissing, CorruptArtifact, BrokenIndex, InvalidEvent) as error:
        raise SourceAway(f"the index at {ref.path} cannot be read: {error}") from error
    return OpenIndex(index, ref, _units(index, embedding))


def _units(index: Index, embedding: Embedding) -> Callable[[Sequence[str]], Vectors] | None:
    if not isinstance(embedding, StaticEmbedding):
        return None
    from tunewheel_embedding.static import StaticEmbedder

    static = StaticEmbedder()
    return static.units if index.manifest.embedding == static.name else None

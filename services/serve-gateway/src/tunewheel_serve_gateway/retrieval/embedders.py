"""Embeds texts with the embedding that a project's spec names.

The module never imports torch. It imports numpy only when something is embedded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import structlog
from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_contracts.formats.allowed_sources import AllowedSources, Hosts
from tunewheel_contracts.formats.index import IndexManifest
from tunewheel_contracts.formats.retrieval_spec import Embedding, EndpointEmbedding, StaticEmbedding
from tunewheel_retrieval.search import WhyNot, vectors_of, why_not

from tunewheel_serve_gateway.errors import Unavailable
from tunewheel_serve_gateway.upstream.breaker import Breaker

if TYPE_CHECKING:
    from tunewheel_embedding.embedders import Embedders as Clients
    from tunewheel_embedding.endpoint import EndpointEmbedder
    from tunewheel_embedding.static import StaticEmbedder, Vectors

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Embedded:
    name: str
    """The embedder's name."""
    vectors: Vectors
    """(texts, dimensions), of unit length."""
    tokens: int
    """Estimated tokens of all texts."""


@dataclass(slots=True)
class Endpoint:
    embedder: EndpointEmbedder
    breaker: Breaker = field(default_factory=Breaker)


class Embedders:
    """The static embedder, which all projects share, and one embedder per endpoint that a spec names.

    ``hosts``: the hosts that endpoints may have. ``seconds``: the longest wait for a question's vector.
    """

    def __init__(self, hosts: Hosts, *, seconds: float) -> None:
        self._allowed = AllowedSources(hosts=hosts)
        self._seconds = seconds
        self._clients: Clients | None = None
        self._endpoints: dict[str, Endpoint] = {}
        self._batches = ThreadPoolExecutor(1, thread_name_prefix="embedding-batch")
        """Thread of ``embed``. Questions do not use it, so they never wait for a request of thousands of
        texts."""

    async def close(self) -> None:
        self._batches.shutdown(wait=False, cancel_futures=True)
        if self._clients is not None:
            await self._clients.close()

    @cached_property
    def _static(self) -> StaticEmbedder:
        from tunewheel_embedding.static import StaticEmbedder

        return StaticEmbedder()

    def by_table(self, manifest: IndexManifest, text: str) -> Vectors | WhyNot:
        """Embed one question with the static embedder. Return its vector, of shape (dimensions,), or why it
        has none. Takes 0.1 ms, and longer for questions of several pages."""
        return vectors_of(manifest, self._static, [text])[0]

    async def by_endpoint(
        self, embedding: EndpointEmbedding, manifest: IndexManifest, text: str
    ) -> Vectors | WhyNot:
        """Embed one question with the endpoint of ``embedding``. Return its vector, of shape (dimensions,),
        or why it has none."""
        try:
            one = self._endpoint(embedding)
            if manifest.embedding != one.embedder.name:
                return WhyNot.EMBEDDER
            return await self._vector(one, text) if one.breaker.allows() else WhyNot.AWAY
        except (TunewheelError, TimeoutError) as error:
            log.warning("question_not_embedded", project=manifest.project, reason=str(error) or repr(error))
            return why_not(error)

    async def embed(self, embedding: Embedding, texts: Sequence[str]) -> Embedded:
        """Return the vectors of ``texts``. A failure here does not open the breaker of questions: otherwise a
        caller's bad texts could stop other callers' questions from being embedded. Raises Unavailable: the
        endpoint failed or is not allowed."""
        from tunewheel_retrieval.passages import estimated_tokens

        tokens = sum(map(estimated_tokens, texts))
        if isinstance(embedding, StaticEmbedding):
            return await asyncio.get_running_loop().run_in_executor(
                self._batches, lambda: Embedded(self._static.name, self._static.units(texts), tokens)
            )
        try:
            one = self._endpoint(embedding)
            return Embedded(one.embedder.name, await one.embedder.units(texts), tokens)
        except TunewheelError as error:
            raise Unavailable(
                f"the texts were not embedded: {error}", param="model", retry_after="5"
            ) from error

    def _endpoint(self, embedding: EndpointEmbedding) -> Endpoint:
        """Return the client of an endpoint; raises InvalidSpec as ``Clients.endpoint`` does."""
        name = embedding.model_dump_json()
        if name not in self._endpoints:
            from tunewheel_embedding.embedders import Embedders as Clients

            self._clients = self._clients or Clients(self._allowed)
            self._endpoints[name] = Endpoint(self._clients.endpoint(embedding))
        return self._endpoints[name]

    async def _vector(self, one: Endpoint, question: str) -> Vectors:
        one.breaker.begin()
        try:
            async with asyncio.timeout(self._seconds):
                vectors = await one.embedder.units([question])
        except (TransientError, TimeoutError):
            one.breaker.fail()
            raise
        except (asyncio.CancelledError, TunewheelError):  # A refusal concerns this question only.
            one.breaker.give_up()
            raise
        one.breaker.succeed()
        return vectors[0]

"""Makes the embedder that a project's spec asks for, to be called in a thread beside an event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.allowed_sources import EMBEDDING_FIELD, AllowedSources
from tunewheel_contracts.formats.retrieval_spec import Embedding, EndpointEmbedding, StaticEmbedding

from tunewheel_embedding.static import StaticEmbedder, Vectors

if TYPE_CHECKING:
    import aiohttp

    from tunewheel_embedding.endpoint import EndpointEmbedder

PROBE = "ready"
"""A harmless text. An embedder that refuses even this one refuses every text."""


class Embedder(Protocol):
    """Makes vectors. Two embedders of the same ``name`` make the same vectors."""

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    def units(self, texts: Sequence[str]) -> Vectors:
        """Return (texts, dimensions), each of length one or zero.

        Raises:
            EmbeddingRefused: the endpoint embeds none of the texts, or refuses one of them.
        """
        ...


class Embedders:
    """Makes embedders. All static embedders share one table. Endpoints need the extra ``endpoint``."""

    def __init__(self, allowed: AllowedSources) -> None:
        self._allowed = allowed
        self._static = StaticEmbedder()
        self._session: aiohttp.ClientSession | None = None

    async def of(self, embedding: Embedding) -> Embedder:
        """Return the embedder, to be called in a thread while this loop runs. Raises InvalidSpec as
        ``endpoint`` does."""
        if isinstance(embedding, StaticEmbedding):
            await asyncio.to_thread(lambda: self._static.name)
            return self._static
        return FromThread(self.endpoint(embedding), asyncio.get_running_loop())

    def endpoint(self, embedding: EndpointEmbedding) -> EndpointEmbedder:
        """Return the client of an endpoint, to be called in the running loop.

        Raises:
            InvalidSpec: the endpoint's host or key is not allowed here, or the key is not set.
        """
        import aiohttp

        from tunewheel_embedding.endpoint import EndpointEmbedder

        self._allowed.check_embedding(embedding)
        key = os.environ.get(embedding.api_key_env) if embedding.api_key_env else None
        if embedding.api_key_env and not key:
            reason = f"names {embedding.api_key_env}, which is not set where this service runs; set it"
            raise InvalidSpec(field=f"{EMBEDDING_FIELD}.api_key_env", reason=reason)
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return EndpointEmbedder(
            self._session, embedding.base_url, embedding.model, dimensions=embedding.dimensions, api_key=key
        )

    async def close(self) -> None:
        """Close the connections to endpoints."""
        if self._session is not None:
            await self._session.close()


@dataclass(frozen=True)
class FromThread:
    """Lets a thread use an endpoint's embedder, which runs in the event loop."""

    endpoint: EndpointEmbedder
    loop: asyncio.AbstractEventLoop

    @property
    def name(self) -> str:
        return self.endpoint.name

    @property
    def dimensions(self) -> int:
        return self.endpoint.dimensions

    def units(self, texts: Sequence[str]) -> Vectors:
        return asyncio.run_coroutine_threadsafe(self.endpoint.units(texts), self.loop).result()

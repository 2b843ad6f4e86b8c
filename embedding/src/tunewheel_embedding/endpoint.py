"""Gets vectors from an OpenAI-compatible ``/embeddings`` endpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import aiohttp
import numpy as np
from tunewheel_contracts.identity import content_id

from tunewheel_embedding.errors import EmbeddingRefused, EndpointAway
from tunewheel_embedding.static import Vectors, unit_length

AT_ONCE = 128
"""How many texts one request holds."""
PATIENCE_SECONDS = 60.0
LARGEST_ANSWER = 64 << 20


ABOUT_THE_TEXTS = (400, 413, 422)
"""Statuses that may concern a single text, which is too long or not allowed, while others can be embedded."""


class EndpointEmbedder:
    """Asks ``base_url`` (up to and including ``/v1``) for vectors of ``model``.

    The caller must check that the host may be asked and may receive the key (``AllowedSources``).
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        model: str,
        *,
        dimensions: int,
        api_key: str | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._session = session
        self._url = f"{base_url.rstrip('/')}/embeddings"
        self._model = model
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._timeout = aiohttp.ClientTimeout(total=patience_seconds)
        self.name = content_id("endpoint", [base_url.rstrip("/"), model, dimensions], digits=12)
        self.dimensions = dimensions

    async def units(self, texts: Sequence[str]) -> Vectors:
        """Return one vector of length one per text, (texts, dimensions); zeros for a blank text.

        Raises:
            EndpointAway: the endpoint does not answer, or asks to retry later.
            EmbeddingRefused: it refuses, or its vectors are not as asked for.
        """
        vectors = np.zeros((len(texts), self.dimensions))
        wanted = [at for at, text in enumerate(texts) if text.strip()]
        for start in range(0, len(wanted), AT_ONCE):
            some = wanted[start : start + AT_ONCE]
            vectors[some] = await self._ask([texts[at] for at in some])
        return unit_length(vectors)

    async def _ask(self, texts: Sequence[str]) -> Vectors:
        body = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        try:
            # no redirects: one could send the key to a host that must not have it
            async with self._session.post(
                self._url, json=body, headers=self._headers, timeout=self._timeout, allow_redirects=False
            ) as answer:
                data = bytearray()
                async for part in answer.content.iter_chunked(1 << 16):
                    data += part
                    if len(data) > LARGEST_ANSWER:
                        raise EmbeddingRefused(f"{self._url} answers over {LARGEST_ANSWER} bytes")
                status = answer.status
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            raise EndpointAway(f"{self._url} does not answer: {error!r}") from error
        if status == 429 or status >= 500:
            raise EndpointAway(f"{self._url} answers {status}: {_beginning(data)}")
        if status != 200:
            told = f"{self._url} answers {status}: {_beginning(data)}"
            raise EmbeddingRefused(told, may_be_one_text=status in ABOUT_THE_TEXTS)
        return self._vectors(bytes(data), len(texts))

    def _vectors(self, data: bytes, count: int) -> Vectors:
        try:
            answered: list[Any] = json.loads(data)["data"]
            ordered = sorted(answered, key=lambda one: one["index"])
            vectors = np.array([one["embedding"] for one in ordered], np.float64)
            places = [one["index"] for one in ordered]
        except (ValueError, TypeError, KeyError) as error:
            raise EmbeddingRefused(f"{self._url} answers no list of vectors: {error!r}") from error
        if places != list(range(count)) or vectors.shape != (count, self.dimensions):
            told = f"{len(places)} vectors of the shape {vectors.shape[1:]}"
            reason = f"answers {told}, asked for {count} of {self.dimensions} dimensions"
            raise EmbeddingRefused(f"{self._url} {reason}; correct retrieval.embedding.dimensions")
        if not np.all(np.isfinite(vectors)):
            told = f"{self._url} answers vectors that hold NaN or an infinity"
            raise EmbeddingRefused(told, may_be_one_text=True)
        return vectors


def _beginning(data: bytes | bytearray) -> str:
    return data[:200].decode("utf-8", "replace")

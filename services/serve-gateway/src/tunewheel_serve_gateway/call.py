"""A client's request over all models that are asked for it, and the answer of each of them."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tunewheel_runtime.identity.roles import Caller

from tunewheel_serve_gateway.chat_request import ChatRequest
from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.errors import Headers
from tunewheel_serve_gateway.output_schema import StreamCheck
from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.upstream.asking import Asked
from tunewheel_serve_gateway.upstream.pool import Pool
from tunewheel_serve_gateway.upstream.protocol import Chunk


@dataclass(slots=True)
class Call:
    """One request of a client."""

    request: ChatRequest
    caller: Caller
    sticky: str | None
    """During a canary, calls with the same value are answered by the same model."""
    hold: Callable[[int], None]
    """Counts bytes of an answer that is held back. Raises Unavailable: there is no room for them."""
    expect: Callable[[Headers], None] = lambda _: None
    """Takes the headers of a streamed answer as soon as its model is chosen."""
    asked: Asked = field(default_factory=Asked)
    chance: float = field(default_factory=random.random)
    """Decides between champion and canary where the request names no user. Drawn once: a heartbeat may have
    sent the headers that name the model before another attempt."""
    champion: Target | None = None
    """The model to ask in place of a candidate that failed."""
    log_refusal: Callable[[], Awaitable[None]] | None = None
    """Logs what a candidate refused, once the champion was asked."""
    opened: Answer | None = None
    """The stream that was opened for the client."""


@dataclass(slots=True)
class Answer:
    """What one model answers to a call."""

    call: Call
    pool: Pool
    target: Target
    request: ChatRequest
    """The call's request, with passages. An attempt after a refused one may have fewer of them."""
    exchange: Exchange
    body: dict[str, Any]
    """What an engine is asked."""
    started: float
    told: Headers = field(default_factory=list[tuple[bytes, bytes]])
    """Headers that tell how sure the model is of the answer."""
    said: dict[str, Any] = field(default_factory=dict[str, Any])
    """An answer that is not streamed, as the engine gave it."""
    whole: bytes = b""
    """The body of an answer that is not streamed."""
    chunks: AsyncGenerator[Chunk, None] | None = None
    """A streamed answer after its ``first`` chunk. Once it is here, the HTTP status is 200."""
    first: Chunk | None = None
    check: StreamCheck | None = None
    """Checks a stream against the output schema; None: the answer is held to none."""
    is_read: bool = False
    """Whether ``Answering.events`` was called for this answer."""

    @property
    def headers(self) -> Headers:
        """The headers that name the model which answers, and the passages in its prompt."""
        return [
            *self.request.headers,
            (b"x-tunewheel-model", self.target.model_id.encode("latin-1", "replace")),
            (b"x-tunewheel-role", self.target.arm.encode()),
            *self.told,
        ]

    @property
    def seconds(self) -> float:
        """How long ago the model was asked."""
        return time.perf_counter() - self.started

    def take(self, chunk: Chunk) -> None:
        """Take over a chunk of a stream, and when its first token came."""
        if self.exchange.take_chunk(chunk) and self.exchange.first_token_seconds is None:
            self.exchange.first_token_seconds = self.seconds

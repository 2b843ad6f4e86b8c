"""What the gateway needs of an engine, and how its failures are told apart.

UpstreamError              an ``ApiError``: what the client is told
├── UpstreamAway     503   no connection
│   └── KeyRefused         the engine does not know the gateway, or does not let it do that
├── UpstreamSilent   504   no answer in time
├── UpstreamBroken   502   an answer that broke off, or makes no sense
│   └── ModelFailed        the engine answered 5xx to this very request
├── UpstreamRefused  4xx   the engine's own refusal (429 with Retry-After), in OpenAI's words
└── ModelNotLoaded   404   the engine does not know the model: reload, or give up
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tunewheel_contracts.formats.serving import Fault

from tunewheel_serve_gateway.errors import ApiError
from tunewheel_serve_gateway.judged import Bases
from tunewheel_serve_gateway.upstream.refusal import refusal_of

Chunk = dict[str, Any]
"""One ``chat.completion.chunk`` of OpenAI's streaming protocol."""
AT_HAND = "tunewheel.more_at_hand"
"""Key of a chunk behind which the next one, or the stream's end, is there already: both may go as one."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that an engine has in each phase."""

    connect: float = 3.0
    first_byte: float = 300.0
    """Silence before the first text: the engine's queue, and reading the prompt. An answer that is not
    streamed comes whole, so this bounds all of it. Loading an adapter has as long."""
    between_tokens: float = 300.0
    control: float = 10.0
    """To list the models or to unload one: no work, so a longer silence is a fault."""


def says_something(chunk: Chunk) -> bool:
    """Tell whether a chunk brings more than the role of who speaks: text, a call of a tool, an end, usage."""
    choices = chunk.get("choices")
    if not choices:
        return True
    return any(
        choice.get("finish_reason") or any(v for k, v in (choice.get("delta") or {}).items() if k != "role")
        for choice in choices
        if isinstance(choice, dict)
    )


class UpstreamError(ApiError):
    """The engine did not answer, or not with a completion. ``detail`` is for whoever operates the gateway:
    what the engine, or a proxy before it, said. As it may quote the request, the completion log alone tells
    it, by the project's policy; that of a health check is told in the process's log. No client is told."""

    fault: Fault | None = None
    """Whose fault it is, as the completion log has it. None: the request never came to an answer (the engine
    is away, full, or lacks the model), so there is no completion to log."""

    def __init__(self, message: str, *, detail: str | None = None, **more: Any) -> None:
        super().__init__(message, **more)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.message} ({self.detail})" if self.detail else self.message


class UpstreamAway(UpstreamError):
    status = 503
    code = "engine_unavailable"


class KeyRefused(UpstreamAway):
    """No fault of the client, nor of its key."""


class UpstreamSilent(UpstreamError):
    status = 504
    code = "engine_timeout"
    fault = "engine"
    should_retry = False
    """By the client itself: it would wait as long again, for an engine that has too much to do already."""


class UpstreamBroken(UpstreamError):
    status = 502
    code = "engine_error"
    fault = "engine"


class ModelFailed(UpstreamBroken):
    """Others are answered meanwhile: the model that was asked is at fault, as far as anybody can tell."""

    fault = "model"


class UpstreamRefused(UpstreamError):
    def __init__(self, status: int, error: Mapping[str, Any], *, retry_after: str | None = None) -> None:
        """``error``: the engine's, of which message, param and code are told."""
        said = refusal_of(status, error)
        super().__init__(said.message, param=said.param, code=said.code, retry_after=retry_after)
        self.status = said.status
        self.fault = None if said.status == 429 else "client"


class ModelNotLoaded(UpstreamError):
    status = 404
    code = "model_not_found"


class Upstream(Protocol):
    """One engine. Every call raises ``UpstreamError`` on failure; cancelling a call frees the engine."""

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the whole ``chat.completion``."""
        ...

    def stream(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        """Yield chunks; the last one bears ``usage`` where the engine counts."""
        ...

    async def list_models(self) -> set[str] | None:
        """Return the names the engine answers to; None where it cannot tell."""
        ...

    @property
    def bases(self) -> Bases:
        """What the engine said of its weights when its models were listed last."""
        ...

    async def load_adapter(self, name: str, path: Path) -> None: ...

    async def unload_adapter(self, name: str) -> None: ...

    async def close(self) -> None: ...

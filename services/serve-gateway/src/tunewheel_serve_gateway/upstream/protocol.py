"""What the gateway needs of an engine, and how its failures are told apart.

UpstreamError              an ``ApiError``: what the client is told
├── UpstreamAway     503   no connection
│   └── KeyRefused         the engine does not know the gateway, or does not let it do that
├── UpstreamSilent   504   no answer in time
├── UpstreamBroken   502   an answer that broke off, or makes no sense
│   └── ModelFailed        the engine answered 5xx to this very request
├── UpstreamRefused  4xx   the engine's own refusal (429 with Retry-After), passed on as it is
└── ModelNotLoaded   404   the engine does not know the model: reload, or give up
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Protocol

from tunewheel_contracts.formats.serving import Fault

from tunewheel_serve_gateway.errors import ApiError
from tunewheel_serve_gateway.judged import Bases

Chunk = dict[str, Any]
"""One ``chat.completion.chunk`` of OpenAI's streaming protocol."""


class UpstreamError(ApiError):
    """The engine did not answer, or not with a completion."""

    fault: Fault | None = None
    """Whose fault it is, as the completion log has it. None: the request never came to an answer (the engine
    is away, full, or lacks the model), so there is no completion to log."""


class UpstreamAway(UpstreamError):
    status = 503
    code = "engine_unavailable"


class KeyRefused(UpstreamAway):
    """No fault of the client, nor of its key."""


class UpstreamSilent(UpstreamError):
    status = 504
    code = "engine_timeout"
    fault = "engine"


class UpstreamBroken(UpstreamError):
    status = 502
    code = "engine_error"
    fault = "engine"


class ModelFailed(UpstreamBroken):
    """Others are answered meanwhile: the model that was asked is at fault, as far as anybody can tell."""

    fault = "model"


class UpstreamRefused(UpstreamError):
    type = "invalid_request_error"

    def __init__(self, status: int, error: dict[str, Any], *, retry_after: str | None = None) -> None:
        super().__init__(str(error.get("message", "refused")), retry_after=retry_after)
        self.status = status
        self.fault = None if status == 429 else "client"
        self._error = error

    def payload(self) -> dict[str, Any]:
        kind = "rate_limit_error" if self.status == 429 else self.type
        return {"error": {"type": kind, "param": None, "code": None, **self._error}}


class ModelNotLoaded(UpstreamError):
    status = 404
    type = "invalid_request_error"
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

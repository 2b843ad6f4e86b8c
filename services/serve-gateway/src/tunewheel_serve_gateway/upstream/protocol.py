"""The interface of an engine's client, and the errors that it raises.

UpstreamError              an ``ApiError``, which is sent to the client
├── UpstreamAway     503   no connection
│   ├── UpstreamLost       the connection was lost after the request was sent
│   └── KeyRefused         the engine refuses the gateway's API key
├── UpstreamSilent   504   no answer in time
├── UpstreamBroken   502   an answer that broke off or is invalid
│   └── ModelFailed        the engine answered 5xx to this request
├── UpstreamRefused  4xx   the engine refused the request (429 with Retry-After); in OpenAI's shape
└── ModelNotLoaded   404   the engine does not have the model loaded
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from tunewheel_contracts.formats.serving import Fault
from tunewheel_runtime.chat import without_key

from tunewheel_serve_gateway.errors import ApiError
from tunewheel_serve_gateway.upstream.bases import EngineIdentity

if TYPE_CHECKING:
    from tunewheel_serve_gateway.upstream.endpoint import Endpoint

Chunk = dict[str, Any]
"""One ``chat.completion.chunk`` of OpenAI's streaming protocol."""
AT_HAND = "tunewheel.more_at_hand"
"""Key of a chunk after which the next chunk, or the stream's end, has already arrived. Both may then be sent
to the client in one piece."""
LONGEST_MESSAGE = 2_000
TOO_LONG = "context_length_exceeded"
_TOO_LONG = re.compile(
    r"maximum (context|model) length|model's (maximum )?context length|context_length_exceeded"
    r"|`inputs` tokens \+ `max_new_tokens` must be|`inputs` must have less than",
    re.IGNORECASE,
)
"""vLLM: "This model's maximum context length is 4096 tokens. However, …", "The decoder prompt (length 5000)
is longer than the maximum model length of 4096.". TGI: "`inputs` tokens + `max_new_tokens` must be <= 2048".
"""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Longest wait for an engine in each phase, in seconds."""

    connect: float = 3.0
    first_byte: float = 300.0
    """Until the first text of a stream, or for a whole answer that is not streamed: the engine's queue and
    the prefill. Loading an adapter has the same limit."""
    between_tokens: float = 300.0
    control: float = 10.0
    """To list the models or to unload one. Neither is work, so a longer wait means a fault."""


def says_something(chunk: Chunk) -> bool:
    """Return whether a chunk holds more than the role: text, a tool call, a finish reason or usage."""
    choices = chunk.get("choices")
    if not choices:
        return True
    return any(
        choice.get("finish_reason") or any(v for k, v in (choice.get("delta") or {}).items() if k != "role")
        for choice in choices
        if isinstance(choice, dict)
    )


class UpstreamError(ApiError):
    """The engine did not answer, or not with a completion.

    ``detail`` holds the message of the engine, or of a proxy before it. It is for operators and never sent to
    a client. Since it may quote the request, it is written only to the completion log, under the project's
    log policy. The detail of a failed health check is written to the process's log.
    """

    engine: Endpoint | None = None
    """Whose error it is."""
    fault: Fault | None = None
    """The party at fault, for the completion log. None: no answer was begun (the engine is unavailable, full,
    or lacks the model), so there is no completion to log."""

    def __init__(self, message: str, *, detail: str | None = None, **more: Any) -> None:
        super().__init__(message, **more)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.message} ({self.detail})" if self.detail else self.message


class UpstreamAway(UpstreamError):
    status = 503
    code = "engine_unavailable"


class UpstreamLost(UpstreamAway):
    """The connection was lost after the request was sent: the request itself may have ended the engine."""


class KeyRefused(UpstreamAway):
    """The engine refused the gateway's key. The client's key is not involved."""


class UpstreamSilent(UpstreamError):
    status = 504
    code = "engine_timeout"
    fault = "engine"
    should_retry = False
    """A retry would wait as long again, and add load to an engine that has too much already."""


class UpstreamBroken(UpstreamError):
    status = 502
    code = "engine_error"
    fault = "engine"


class ModelFailed(UpstreamBroken):
    """The engine failed on this request while it answers others, so the model is assumed to be at fault."""

    fault = "model"


class UpstreamRefused(UpstreamError):
    """The engine refused the request, in OpenAI's shape.

    Engines differ in all but the HTTP status. vLLM repeats the status as ``code`` and has its own names for
    ``type``. TGI sends only a message. Neither has a code for a prompt that is too long.
    """

    def __init__(self, status: int, error: Mapping[str, Any], *, retry_after: str | None = None) -> None:
        """``error``: the engine's error object; its message, and its param and code where they are strings,
        are passed on."""
        message = str(error.get("message") or "the engine refuses the request")[:LONGEST_MESSAGE]
        param, code = (_text(error.get(name)) for name in ("param", "code"))
        if status == 429:
            code = code or "rate_limit_exceeded"
        elif code == TOO_LONG or _TOO_LONG.search(message):
            # vLLM's `input_tokens` is nothing that a client sends.
            status, param, code = 400, "messages" if param in (None, "input_tokens") else param, TOO_LONG
        super().__init__(message, param=param, code=code, retry_after=retry_after)
        self.status = status
        self.fault = None if status == 429 else "client"


class ModelNotLoaded(UpstreamError):
    status = 404
    code = "model_not_found"


class Upstream(Protocol):
    """The client of one engine. A failed call raises ``UpstreamError``. Cancelling a call stops the engine's
    work on it."""

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the whole ``chat.completion``."""
        ...

    def stream(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        """Yield chunks. The last chunk has ``usage`` if the engine counts tokens."""
        ...

    async def list_models(self) -> set[str] | None:
        """Return the names of the engine's models; None where it cannot list them."""
        ...

    @property
    def identity(self) -> EngineIdentity:
        """What the engine reported about itself when its models were listed last."""
        ...

    async def load_adapter(self, name: str, path: Path) -> None: ...

    async def unload_adapter(self, name: str) -> None: ...

    async def close(self) -> None: ...


def unreachable(error: Exception, retry_after: str) -> UpstreamAway:
    """Return the error for an engine to which no connection can be made."""
    reason = f"the inference engine cannot be reached ({type(error).__name__}); try again shortly"
    return UpstreamAway(reason, retry_after=retry_after)


def lost(error: Exception, retry_after: str) -> UpstreamLost:
    """Return the error for a connection that ended after the request was sent."""
    reason = f"the connection to the inference engine was lost ({type(error).__name__}); try again shortly"
    return UpstreamLost(reason, retry_after=retry_after)


def failure(
    status: int, body: bytes, *, key: str | None, retry_after: str | None, default_retry_after: str
) -> UpstreamError:
    """Return the error for an engine's answer of ``status`` ≥ 300. Where the answer repeats the gateway's
    ``key``, the key is masked."""
    if status < 400:
        return redirected(status, default_retry_after)
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = {}
    told = message_of(parsed)
    message = without_key(told or body.decode("utf-8", "replace"), key)
    message = message[: None if told else 500] or f"status {status}"
    if status == 404:
        return ModelNotLoaded(message, param="model")
    if status in (401, 403):
        reason = "the engine refuses the gateway's key; check TUNEWHEEL_ENGINE_API_KEY"
        return KeyRefused(reason, detail=message, retry_after=default_retry_after)
    if status == 503:
        reason = "the inference engine is unavailable; try again shortly"
        return UpstreamAway(reason, detail=message, retry_after=retry_after or default_retry_after)
    if status >= 500:
        return ModelFailed("the engine failed; send the request again", detail=message)
    details = parsed.get("error") if isinstance(parsed, dict) else None
    texts = details.items() if isinstance(details, dict) else ()
    error = {name: without_key(text, key) for name, text in texts if isinstance(text, str)}
    error["message"] = message
    if status == 429:
        retry_after = retry_after or default_retry_after
    return UpstreamRefused(status, error, retry_after=retry_after)


def redirected(status: int, retry_after: str) -> UpstreamAway:
    """Return the error for a redirect, which is never followed."""
    reason = (
        f"the engine's address answers {status}, a redirect, which is never followed; name the address "
        "of the engine itself in TUNEWHEEL_ENGINE_URL"
    )
    return UpstreamAway(reason, retry_after=retry_after)


def message_of(parsed: Any) -> str | None:
    """Return the message of an error body in OpenAI's shape, vLLM's older flat shape or FastAPI's shape."""
    if not isinstance(parsed, dict):
        return None
    error = parsed.get("error", parsed)
    if isinstance(error, str):
        return error
    found = error.get("message") or error.get("detail") if isinstance(error, dict) else None
    return str(found) if found else None


def _text(value: Any) -> str | None:
    return value[:100] if isinstance(value, str) and value else None

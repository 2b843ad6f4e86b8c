"""What a client of the gateway is told when a request cannot be answered, in OpenAI's error shape.

A caller who is unknown (401) or lacks the role (403) is answered by ``tunewheel_runtime.identity.guard``.

ApiError                     carries status, code and param; its type follows from its status
├── BadRequest        400    the request is wrong; ``param`` names the field
├── UnknownModel      404    nobody of that name is served, or not for this caller
├── UnknownCompletion 404    no gateway answered under that id, or not for this caller
├── UnknownUrl        404    the gateway has no such endpoint
├── MethodNotAllowed  405
├── BodyTooLarge      413
├── Unprocessable     422    well-formed, but something needed is missing
└── Unavailable       503    the engine, an adapter or the broker is away; with Retry-After
"""

from __future__ import annotations

from typing import Any

import orjson
from tunewheel_contracts.errors import TunewheelError

Headers = list[tuple[bytes, bytes]]
UNFORESEEN = "the gateway failed; send the request again, or look into its log"
"""The client is not at fault, and learns nothing else; the log has the error itself."""


class ApiError(TunewheelError):
    """An answer other than 2xx. ``message`` is what the client is told."""

    status = 500
    kind: str | None = None
    """OpenAI's name for this kind of error, where the status does not say it."""
    code: str | None = None
    should_retry: bool | None = None
    """What OpenAI's clients are told to do, where the status alone would tell them something else: by
    themselves they ask again after 408, 409, 429 and 5xx."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.retry_after = retry_after

    @property
    def type(self) -> str:
        """OpenAI's name for this kind of error."""
        if self.kind is not None:
            return self.kind
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    def payload(self) -> dict[str, Any]:
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def body(self) -> bytes:
        return orjson.dumps(self.payload())

    def headers(self) -> Headers:
        found: Headers = [(b"content-type", b"application/json")]
        if self.retry_after is not None:
            found.append((b"retry-after", self.retry_after.encode("latin-1", "replace")))
        if self.should_retry is not None:
            found.append((b"x-should-retry", b"true" if self.should_retry else b"false"))
        return found


class BadRequest(ApiError):
    status = 400


class UnknownModel(ApiError):
    status = 404
    code = "model_not_found"


class UnknownCompletion(ApiError):
    status = 404
    code = "completion_not_found"


class UnknownUrl(ApiError):
    status = 404
    code = "unknown_url"


class MethodNotAllowed(ApiError):
    status = 405
    code = "method_not_allowed"


class BodyTooLarge(ApiError):
    status = 413
    code = "body_too_large"


class Unprocessable(ApiError):
    status = 422


class Unavailable(ApiError):
    status = 503
    code = "unavailable"

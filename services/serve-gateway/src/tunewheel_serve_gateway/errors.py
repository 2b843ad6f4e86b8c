"""Errors that the gateway sends to a client, in OpenAI's error shape.

A caller who is unknown (401) or lacks the role (403) is answered by ``tunewheel_runtime.identity.guard``.

ApiError                     carries status, code and param; its type follows from its status
├── BadRequest        400    the request is wrong; ``param`` names the field
├── UnknownModel      404    no model of that name is served, or this caller may not use it
├── UnknownCompletion 404    no gateway made that id, or this caller may not use its project
├── UnknownUrl        404    the gateway has no such endpoint
├── MethodNotAllowed  405
├── BodyTooLarge      413
├── Unprocessable     422    well-formed, but something needed is missing
└── Unavailable       503    the engine, an adapter or the broker is unavailable; with Retry-After
"""

from __future__ import annotations

from typing import Any

import orjson
from tunewheel_contracts.errors import TunewheelError

Headers = list[tuple[bytes, bytes]]
UNFORESEEN = "the gateway failed; send the request again, or look into its log"
"""Message of an unexpected error. The client gets no details; they are in the gateway's log."""


class ApiError(TunewheelError):
    """An answer with an error status. ``message`` is sent to the client."""

    status = 500
    kind: str | None = None
    """OpenAI's type of this error, where it does not follow from the status."""
    code: str | None = None
    should_retry: bool | None = None
    """Value of the header ``x-should-retry``, which OpenAI's clients obey. None: no header. Without it they
    retry after 408, 409, 429 and 5xx."""

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
        """OpenAI's type of this error."""
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

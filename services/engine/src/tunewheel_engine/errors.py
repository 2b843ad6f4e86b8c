"""Errors that the engine sends to a client. All are an ``EngineError``.

Refused                 400   a parameter is wrong; ``param`` names it
  ├── ModelNotFound     404   no base model or adapter of this name
  ├── AdapterRefused    400   the adapter's files or name are not accepted
  ├── TooLarge          413   the body is over the limit
  └── Overloaded        429   the queue is full; ``retry_after`` says when to come back
EngineFailed            500   generation failed; the process stops
  └── ConstraintFailed  500   one answer's grammar exceeded its limits; other answers go on
"""

from __future__ import annotations


class EngineError(Exception):
    """An answer with an error status. ``param`` is the parameter at fault."""

    status = 500
    kind = "server_error"
    code = "engine_failed"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        self.message = message
        self.param = param
        self.code = code or self.code
        super().__init__(message)


class Refused(EngineError):
    """The request cannot be served as it is."""

    status = 400
    kind = "invalid_request_error"
    code = "invalid_value"


class ModelNotFound(Refused):
    status = 404
    code = "model_not_found"


class AdapterRefused(Refused):
    code = "adapter_refused"


class TooLarge(Refused):
    status = 413
    code = "body_too_large"


class Overloaded(Refused):
    status = 429
    kind = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineFailed(EngineError):
    """Generation failed. The process then stops, except after a ConstraintFailed."""


class ConstraintFailed(EngineFailed):
    """One answer cannot be continued under its grammar. Other answers go on."""

    code = "constraint_failed"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the answer's grammar cannot be followed ({reason}); ask for a simpler format")

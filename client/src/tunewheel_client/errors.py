"""Errors of the client, named by the decision that they cause.

    TunewheelError
    └── ClientError        root of all errors of this package
        ├── NoAddress      nobody said which wheel to talk to, or with which key
        ├── InvalidContexts  the file of contexts cannot be used
        ├── NotAllowed     the wheel does not know the caller, or the caller lacks a role (401, 403)
        ├── NotFound       the wheel has nothing of this name, or has erased it (404, 410)
        ├── Conflict       the state of the wheel does not permit it (409)
        ├── Refused        the request is wrong; ``param`` names the field (other 4xx)
        └── Away           the wheel does not answer or is busy; the same call may succeed later (429, 5xx)

``Away`` is a ``TransientError`` too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunewheel_contracts.errors import TransientError, TunewheelError


class ClientError(TunewheelError):
    """Root of the client's errors. ``status``: the HTTP status; None where no service answered."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        param: str | None = None,
        code: str | None = None,
        faults: Sequence[tuple[str, str]] = (),
    ) -> None:
        """``faults``: field and reason of each fault, where a request has several."""
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code
        self.faults = tuple(faults)


class NoAddress(ClientError):
    """Nobody said which wheel to talk to; the message names the ways to say it."""


class InvalidContexts(ClientError):
    """The file of contexts cannot be read or written, or lacks a context."""


class NotAllowed(ClientError):
    """The wheel does not know the caller (401), or the caller lacks a role (403)."""


class NotFound(ClientError):
    """The wheel has nothing of this name (404), or has erased it (410)."""


class Conflict(ClientError):
    """The state of the wheel does not permit the request (409)."""


class Refused(ClientError):
    """The request is wrong. ``param`` names the field."""


class Away(ClientError, TransientError):
    """The wheel does not answer, or is busy. The same call may succeed later."""

    retry_after: float | None = None
    """Seconds after which the service asks to be called again."""


def error_of(status: int, body: Any, headers: Mapping[str, str], *, service: str) -> ClientError:
    """Return the error for an answer of ``service`` with a status of 400 or more. ``body``: the parsed JSON,
    or the text of an answer that is no JSON."""
    message, param, code = _complaint(body)
    told = f"{service}: {message or f'status {status}'}"
    error = _class_of(status)(told, status=status, param=param, code=code, faults=_faults(body))
    if isinstance(error, Away):
        error.retry_after = _seconds(headers.get("retry-after"))
    return error


def _class_of(status: int) -> type[ClientError]:
    named = {401: NotAllowed, 403: NotAllowed, 404: NotFound, 410: NotFound, 409: Conflict, 429: Away}
    return named.get(status) or (Away if status >= 500 else Refused)


def _complaint(body: Any) -> tuple[str, str | None, str | None]:
    """Return message, field and code of an error in the services' shape, in FastAPI's, or in a receipt's."""
    match body:
        case {"error": {"message": str(message), **rest}}:
            return message, rest.get("param"), rest.get("code")
        case {"detail": str(message)}:
            field, colon, _ = message.partition(": ")
            return message, field if colon and field.isidentifier() else None, None
        case {"detail": [{"loc": [*place], "msg": message}, *_]}:
            field = ".".join(str(step) for step in place[1:])
            return f"{field}: {message}", field, None
        case {"refused": [{"field": str(field), "reason": reason}, *_]}:
            return f"{field} {reason}", field, None
        case {"error": str(message)}:
            return message, None, None
        case str():
            return body[:300], None, None
        case _:
            return "", None, None


def _faults(body: Any) -> list[tuple[str, str]]:
    match body:
        case {"error": {"faults": [*faults]}}:
            return [(str(one["param"]), str(one["message"])) for one in faults]
        case _:
            return []


def _seconds(text: str | None) -> float | None:
    """Return the seconds of a ``Retry-After``; None for a date, or for no such header."""
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None

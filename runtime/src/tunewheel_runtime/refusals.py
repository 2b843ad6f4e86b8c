"""Refusals of an HTTP API, all in one shape: that of the guard, which is OpenAI's."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Self, cast

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from tunewheel_contracts.api.errors import ErrorDetail, ErrorResponse, Fault
from tunewheel_contracts.errors import InvalidEvent, InvalidSpec, TransientError, TunewheelError, complaints

CODES = MappingProxyType(
    {
        HTTPStatus.NOT_FOUND: "not_found",
        HTTPStatus.CONFLICT: "conflict",
        HTTPStatus.GONE: "gone",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_large",
        HTTPStatus.UNPROCESSABLE_ENTITY: "invalid",
        HTTPStatus.SERVICE_UNAVAILABLE: "away",
    }
)
"""The code of a refusal, by its HTTP status."""
AGAIN_SECONDS = 1
"""When to send a request again that a service could not answer."""
MOST_FAULTS = 1_000
"""How many of a request's faults are listed. The message tells how many there are."""


class Refused(TunewheelError):
    """A request that cannot be carried out. ``field`` is the field to correct; ``status`` is the HTTP
    status."""

    def __init__(
        self, status: HTTPStatus, field: str | None, reason: str, *, others: Iterable[tuple[str, str]] = ()
    ) -> None:
        """``others``: field and reason of the other faults."""
        self.status = status
        self.field = field
        self.faults = [(field, reason), *others] if field is not None else []
        more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
        super().__init__(reason if field is None else f"{field}: {reason}{more}")

    @classmethod
    def of(cls, error: ValidationError) -> Self:
        """Return a refusal that names every invalid field."""
        (field, reason), *others = complaints(error)
        return cls(HTTPStatus.UNPROCESSABLE_ENTITY, field, reason, others=others)


def answer_errors(api: Starlette) -> None:
    """Let ``api``, a FastAPI app, answer every refusal in OpenAI's error shape, as the guard does. 413: an
    event is too long. 422: a value is invalid. 503: the broker or the store is away."""
    from fastapi.exceptions import RequestValidationError

    for kind in (Refused, TransientError, InvalidEvent, InvalidSpec, HTTPException, RequestValidationError):
        api.add_exception_handler(kind, _answer)


async def _answer(_: Request, error: Exception) -> JSONResponse:
    refused, headers = _refusal(error), dict[str, str]()
    if isinstance(error, HTTPException):
        headers |= error.headers or {}
    elif refused.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = str(AGAIN_SECONDS)
    faults = tuple(Fault(param=field, message=reason) for field, reason in refused.faults[:MOST_FAULTS])
    detail = ErrorDetail(
        message=str(refused),
        type="server_error"
        if refused.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        else "invalid_request_error",
        param=refused.field,
        code=CODES.get(refused.status, refused.status.phrase.lower().replace(" ", "_")),
        faults=faults if len(faults) > 1 else (),
    )
    body = ErrorResponse(error=detail).model_dump(mode="json")
    return JSONResponse(body, refused.status, headers)


def _refusal(error: Exception) -> Refused:
    match error:
        case Refused():
            return error
        case InvalidSpec():
            return Refused(
                HTTPStatus.UNPROCESSABLE_ENTITY, error.field, error.reason, others=error.faults[1:]
            )
        case InvalidEvent():  # the publisher refuses what the topic cannot hold
            return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, error.field, error.reason)
        case HTTPException():
            return Refused(HTTPStatus(error.status_code), None, str(error.detail))
        case TransientError():
            return Refused(HTTPStatus.SERVICE_UNAVAILABLE, None, str(error))
        case _:  # FastAPI's RequestValidationError; the first part of a place is "body", "query" or "path"
            found: list[Any] = [{**one, "loc": one["loc"][1:]} for one in cast(Any, error).errors()]
            (field, reason), *others = complaints(found)
            return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, field, reason, others=others)

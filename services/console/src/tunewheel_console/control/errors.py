"""Refusals of the control API, in the shape of the guard's."""

from __future__ import annotations

from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from tunewheel_contracts.api.errors import ErrorDetail, ErrorResponse, Fault
from tunewheel_contracts.errors import InvalidEvent, InvalidSpec, TransientError, complaints
from tunewheel_runtime.identity.guard import RESPONSES

from tunewheel_console.refusals import Refused

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
REFUSALS: dict[int | str, dict[str, Any]] = {
    **RESPONSES,
    404: {"model": ErrorResponse, "description": "The named thing is not there; `param` says which"},
    409: {"model": ErrorResponse, "description": "Several things are meant, or the state forbids it"},
}
"""The refusals of every route, for the API's description."""


def answer_errors(api: FastAPI) -> None:
    """Let ``api`` answer every refusal in OpenAI's error shape, as the guard does. 413: an event is too long.
    422: a value is invalid. 503: the broker or the store is away."""
    for kind in (Refused, TransientError, InvalidEvent, InvalidSpec, HTTPException, RequestValidationError):
        api.add_exception_handler(kind, _answer)


async def _answer(_: Request, error: Exception) -> JSONResponse:
    refused, headers = _refusal(error), dict[str, str]()
    if isinstance(error, HTTPException):
        headers |= error.headers or {}
    elif refused.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = str(AGAIN_SECONDS)
    faults = tuple(Fault(param=field, message=reason) for field, reason in refused.faults)
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
        case RequestValidationError():
            found = [{**one, "loc": one["loc"][1:]} for one in error.errors()]
            (field, reason), *others = complaints(found)  # pyright: ignore[reportArgumentType]
            return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, field, reason, others=others)
        case HTTPException():
            return Refused(HTTPStatus(error.status_code), None, str(error.detail))
        case _:
            return Refused(HTTPStatus.SERVICE_UNAVAILABLE, None, str(error))

"""Refusals of the control API, in the shape of the guard's."""

from __future__ import annotations

from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.requests import Request
from tunewheel_contracts.api.errors import ErrorDetail, ErrorResponse
from tunewheel_contracts.errors import TransientError
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
REFUSALS: dict[int | str, dict[str, Any]] = {
    **RESPONSES,
    404: {"model": ErrorResponse, "description": "The named thing is not there; `param` says which"},
    409: {"model": ErrorResponse, "description": "Several things are meant, or the state forbids it"},
}
"""The refusals of every route, for the API's description."""


def refusal(status: HTTPStatus, message: str, param: str | None) -> JSONResponse:
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    detail = ErrorDetail(message=message, type=kind, param=param, code=CODES.get(status, "refused"))
    return JSONResponse(ErrorResponse(error=detail).model_dump(), status)


def answer_errors(web: FastAPI) -> None:
    """Answer errors of routes by refusals. 503: the broker, the store or another service is away."""

    @web.exception_handler(Refused)
    async def answer_refused(_: Request, error: Refused) -> JSONResponse:
        return refusal(error.status, str(error), error.field)

    @web.exception_handler(TransientError)
    async def answer_away(_: Request, error: TransientError) -> JSONResponse:
        return refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error), None)

    @web.exception_handler(RequestValidationError)
    async def answer_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first: dict[str, Any] = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
        return refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"{field}: {first['msg']}", field)

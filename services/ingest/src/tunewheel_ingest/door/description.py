"""Describes request bodies in OpenAPI. The routes read streams, so FastAPI cannot derive their schemas."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema
from tunewheel_contracts.event import UpstreamEvent
from tunewheel_runtime.admission import JSON_LINES
from tunewheel_runtime.identity import guard

from tunewheel_ingest.door.intake import Receipt

RESPONSES: dict[int | str, dict[str, Any]] = {
    401: guard.RESPONSES[401],
    403: {
        "model": Receipt | guard.ErrorResponse,
        "description": "The caller lacks the role in the project of the query, or in those of all events",
    },
    413: {"model": Receipt, "description": "The body is over the limit"},
    422: {"model": Receipt, "description": "Nothing was taken; every refusal names the field and the fix"},
    503: {
        "model": Receipt | guard.ErrorResponse,
        "description": "The broker, the store or the issuer of tokens is away; sending again is harmless",
    },
}
FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                }
            },
        },
    }
}
_REFERENCE = "#/components/schemas/{model}"


def json_body(event_class: type[UpstreamEvent], *, lines: bool = True) -> dict[str, Any]:
    """Return the description of a body: one event, or one event per line as JSON Lines."""
    schema = {"$ref": _REFERENCE.format(model=event_class.__name__)}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if lines:
        content[JSON_LINES[0]] = {"schema": {"type": "string", "description": "One event a line."}}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI, events: tuple[type[UpstreamEvent], ...]) -> None:
    """Add the schemas of ``events`` to ``/openapi.json``."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _, found = models_json_schema(
                [(event, "validation") for event in events], ref_template=_REFERENCE
            )
            definitions = found["$defs"]
            for event in events:
                described = definitions[event.__name__]
                described["required"].remove("project")  # it may be in the query instead
                del described["properties"]["principal"]  # always the caller
            del definitions["Principal"]
            plain()["components"]["schemas"].update(definitions)
        return plain()

    app.openapi = openapi

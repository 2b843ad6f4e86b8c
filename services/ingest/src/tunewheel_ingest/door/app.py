"""The routes of the HTTP API, and the schemas of their bodies for OpenAPI. The routes read streams, so
FastAPI cannot derive them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from tunewheel_contracts.api.errors import ErrorResponse
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import UpstreamEvent
from tunewheel_contracts.events.upstream import (
    DocumentPublished,
    DocumentWithdrawn,
    ErasureRequested,
    ExamplePublished,
    TicketPublished,
)
from tunewheel_contracts.formats.catalog import FORMATS
from tunewheel_contracts.generation.asyncapi import asyncapi_files
from tunewheel_contracts.generation.schemas import json_schema, topic_schema
from tunewheel_contracts.principal import SET_BY_DOORS
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.admission import JSON_LINES
from tunewheel_runtime.identity import guard
from tunewheel_runtime.identity.guard import asks_nobody, guard_descriptions, needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.store import ObjectStore

from tunewheel_ingest.door.bulk import Bulk
from tunewheel_ingest.door.files import Files
from tunewheel_ingest.door.intake import Intake, Receipt, answer
from tunewheel_ingest.door.once import HEADER, Once
from tunewheel_ingest.door.webhooks import Webhooks

RESPONSES: dict[int | str, dict[str, Any]] = {
    401: guard.RESPONSES[401],
    403: {
        "model": Receipt | ErrorResponse,
        "description": "The caller lacks the role in the project of the query, or in those of all events",
    },
    413: {"model": Receipt, "description": "The body is over the limit"},
    422: {"model": Receipt, "description": "Nothing was taken; every refusal names the field and the fix"},
    429: {
        "model": Receipt,
        "description": "The project sends too much; send again after Retry-After. Sending again is harmless",
    },
    503: {
        "model": Receipt | ErrorResponse,
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
                for name in SET_BY_DOORS:
                    described["properties"].pop(name, None)
            del definitions["Principal"], definitions["Trust"]
            plain()["components"]["schemas"].update(definitions)
        return plain()

    app.openapi = openapi


Project = Annotated[str | None, Query(description="For events that name none.")]
Key = Annotated[str | None, Header(alias=HEADER, description="Names the request, to be sent again safely.")]
TAKEN: dict[str, Any] = {"status_code": 202, "response_model": Receipt, "responses": RESPONSES}
BEARER = Depends(HTTPBearer(auto_error=False, description="An API key, or a token of the OIDC issuer."))
"""For the API's description only. The guard of each route checks the token."""
FILES = "/v1/documents/files"
PUBLISHED: dict[str, type[UpstreamEvent]] = {
    "/v1/tickets": TicketPublished,
    "/v1/documents": DocumentPublished,
    "/v1/examples": ExamplePublished,
    "/v1/erasures": ErasureRequested,
}


def make_api(
    intake: Intake,
    store: ObjectStore,
    *,
    max_body_bytes: int,
    publish_batch: int,
    max_document_bytes: int,
    source_secrets: Path | None = None,
) -> FastAPI:
    """Build the app; every answer is a ``Receipt``."""
    app = FastAPI(
        title="Tunewheel ingest", version="1", docs_url="/docs", redoc_url=None, dependencies=[BEARER]
    )
    once = Once(store)
    bulk = Bulk(intake, max_body_bytes=max_body_bytes, publish_batch=publish_batch)
    files = Files(intake, store, max_bytes=max_document_bytes)
    for path, event_class in PUBLISHED.items():
        _add_bulk(app, path, event_class, bulk, once)
    _add_files(app, files, once)
    _add_withdrawal(app, bulk, once)
    _add_webhooks(app, Webhooks(intake, once, secrets=source_secrets, max_bytes=max_body_bytes))
    add_contracts(app)
    app.exception_handler(HTTPException)(_no_route)
    describe(app, tuple(PUBLISHED.values()))
    guard_descriptions(app.routes)
    return app


def _add_bulk(app: FastAPI, path: str, event_class: type[UpstreamEvent], bulk: Bulk, once: Once) -> None:
    role = Role.OPERATOR if event_class is ErasureRequested else Role.PUBLISHER

    @app.post(path, openapi_extra=json_body(event_class), name=event_class.type, **TAKEN)
    @needs(role)
    async def post(request: Request, project: Project = None, key: Key = None) -> JSONResponse:
        return await once.run(
            request, key, lambda body: bulk.take(event_class, request, body, role=role, project=project)
        )


def _add_files(app: FastAPI, files: Files, once: Once) -> None:
    @app.post(FILES, openapi_extra=FILE_BODY, name="document.file", **TAKEN)
    @needs(Role.PUBLISHER)
    async def post(
        request: Request,
        project: Project = None,
        document_id: str | None = None,
        title: str | None = None,
        media_type: str | None = None,
        published_at: str | None = None,
        allowed_groups: Annotated[str | None, Query(description="A JSON list of groups.")] = None,
        attributes: Annotated[str | None, Query(description="A JSON object of texts.")] = None,
        key: Key = None,
    ) -> JSONResponse:
        """Take one document as a file: its bytes as the body, or as a field of a form."""
        told = {
            "project": project, "document_id": document_id, "title": title, "media_type": media_type,
            "published_at": published_at, "allowed_groups": allowed_groups, "attributes": attributes,
        }  # fmt: skip
        fields = {name: value for name, value in told.items() if value is not None}
        return await once.run(request, key, lambda body: files.take(request, body, fields))


def _add_withdrawal(app: FastAPI, bulk: Bulk, once: Once) -> None:
    missing = {"model": Receipt, "description": "The path leads nowhere"}
    taken: dict[str, Any] = {**TAKEN, "responses": {**RESPONSES, 404: missing}}

    @app.delete("/v1/documents/{document_id:path}", name="document.withdrawn", **taken)
    @needs(Role.PUBLISHER)
    async def delete(
        request: Request, document_id: str, project: Project = None, reason: str = "", key: Key = None
    ) -> JSONResponse:
        """Withdraw a document: no later dataset version holds it.

        The event's id follows from the request alone, so that a repeated request is the same event. The event
        withdraws everything published up to its time, so a later request also takes what came since.
        """
        told = {"project": project, "document_id": document_id, "reason": reason}
        body = json.dumps({name: value for name, value in told.items() if value is not None}).encode()
        return await once.run(
            request,
            key,
            lambda _: bulk.take(DocumentWithdrawn, request, _one(body), role=Role.PUBLISHER, project=None),
        )


def _add_webhooks(app: FastAPI, webhooks: Webhooks) -> None:
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": {}}}}}

    @app.post("/v1/projects/{project}/sources/{name}", openapi_extra=body, name="source.webhook", **TAKEN)
    @asks_nobody
    async def post(request: Request, project: str, name: str) -> JSONResponse:
        """Take a webhook of another system, which a source of the project maps to events.

        No key is asked for: the signature in the headers, by the source's secret, says who sent it.
        """
        return await webhooks.take(request, project, name)


async def _no_route(_: Request, error: Exception) -> JSONResponse:
    """Answer an unknown path with a ``Receipt``. A document id with a line break matches no route either."""
    status, reason = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "")
    receipt = Receipt()
    receipt.refuse(1, InvalidEvent(field="(path)", reason=f"{reason}; see /docs for what there is"))
    return answer(receipt, status)


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


SCHEMA_TYPE = "application/schema+json"


def add_contracts(app: FastAPI) -> None:
    """Add the routes. They ask for no key: they tell what any checkout of the project tells."""

    @app.get("/v1/schemas/{name}.json", name="schema", include_in_schema=False)
    @asks_nobody
    def schema(name: str) -> Response:
        """Return the JSON Schema of a topic's data, or of an artifact. Its ``$id`` is this address."""
        return Response(_schema(name), media_type=SCHEMA_TYPE)

    @app.get("/v1/asyncapi.yaml", name="asyncapi", include_in_schema=False)
    @asks_nobody
    def asyncapi() -> Response:
        """Return the AsyncAPI 3.0 document. It refers to the schemas beside it."""
        return Response(_asyncapi(), media_type="application/yaml")


@cache
def _schema(name: str) -> bytes:
    if name in BY_NAME:
        return json.dumps(topic_schema(BY_NAME[name])).encode()
    if name in FORMATS:
        return json.dumps(json_schema(name, FORMATS[name])).encode()
    raise HTTPException(404, f"there is no schema {name}")


@cache
def _asyncapi() -> bytes:
    return "".join(asyncapi_files().values()).encode()

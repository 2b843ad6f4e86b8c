"""The schemas of the contracts at an address of this installation: where each ``$id`` leads."""

from __future__ import annotations

import json
from functools import cache

from fastapi import FastAPI
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from tunewheel_contracts.formats.catalog import FORMATS
from tunewheel_contracts.generation.asyncapi import asyncapi_files
from tunewheel_contracts.generation.schemas import json_schema, topic_schema
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.identity.guard import asks_nobody

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

"""The Python client has a method for every operation of the services' OpenAPI documents that a person needs,
with every query parameter, and asks for nothing that is not there."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from tunewheel_client import AsyncClient, ClientError, login_async
from tunewheel_client.aio.resource import Paging
from tunewheel_serve_gateway.openapi import document

from .identity_samples import build

Operation = tuple[str, str, str]
"""Service, method and path, such as ``/v1/projects/{project}/runs``."""
SERVICES = ("console", "gateway", "ingest")
LEFT_OUT = {
    ("gateway", "GET", "/v1/models"): "for clients of OpenAI's API",
    ("gateway", "GET", "/v1/models/{name}"): "for clients of OpenAI's API",
    ("gateway", "POST", "/v1/completions"): "for clients of OpenAI's API",
    ("gateway", "POST", "/v1/embeddings"): "for clients of OpenAI's API",
    ("gateway", "POST", "/v1/responses"): "for clients of OpenAI's API",
    ("gateway", "GET", "/v1/status"): "for operators of the gateway",
    ("gateway", "POST", "/v1/search"): "the console hands questions on to it",
    ("ingest", "POST", "/v1/erasures"): "the console takes erasures too",
    ("ingest", "DELETE", "/v1/documents/{document_id}"): "the console takes withdrawals too",
    (
        "ingest",
        "POST",
        "/v1/projects/{project}/sources/{name}",
    ): "for other systems, which sign in their own way",
}
VALUES: dict[str, Any] = {
    "str": "x-1", "int": 1, "float": 0.0, "datetime": datetime(2026, 1, 1, tzinfo=UTC),
    "Sequence[str]": ["x-1"], "Sequence[int]": [1], "Sequence[Mapping[str, Any]]": [],
    "str | Mapping[str, Any]": {},
    "LabelOutput": "x-1", "str | Sequence[Mapping[str, Any]]": "x-1", "str | dict[str, Any]": "x-1",
    "Path | bytes": b"x", "Path": Path("/dev/null"), "Mapping[str, str]": {},
}  # fmt: skip
ITEMS = [{f"{kind}_id": "x"} for kind in ("ticket", "example", "document")]


def operations(spec: dict[str, Any], service: str) -> Iterator[tuple[Operation, set[str]]]:
    """Yield each operation with its query parameters. A part of a path with a fixed set of values is one
    operation for each value."""
    for path, methods in spec["paths"].items():
        for method, told in methods.items():
            parameters = [*told.get("parameters", ()), *methods.get("parameters", ())]
            query = {one["name"] for one in parameters if one["in"] == "query"}
            fixed = {
                one["name"]: values
                for one in parameters
                if one["in"] == "path" and (values := _values(spec, one["schema"]))
            }
            for chosen in itertools.product(*fixed.values()):
                filled = path
                for name, value in zip(fixed, chosen, strict=True):
                    filled = filled.replace(f"{{{name}}}", value)
                yield (service, method.upper(), filled), query


def _values(spec: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return (spec["components"]["schemas"][name] if name else schema).get("enum", [])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[Operation, set[str]]:
    """Query parameters by operation, of all services that people call."""
    specs = {"gateway": json.loads(document())}
    for name in ("console", "ingest"):
        app: Any = build(name, tmp_path_factory.mktemp(name), identity="open").doors.mounted
        specs[name] = app.openapi()
    found = dict(itertools.chain.from_iterable(operations(spec, name) for name, spec in specs.items()))
    return {one: query for one, query in found.items() if one[2].startswith("/v1/")}


def arguments(method: Any) -> dict[str, Any]:
    """Return a value for every parameter, optional ones too."""
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(method).parameters.items():
        told = str(parameter.annotation).removesuffix(" | None")
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= {key: VALUES[kind] for key, kind in _typed(told)}
        elif told.startswith("Literal["):
            found[name] = re.split("['\"]", told)[1]
        elif told == "Split":
            found[name] = "train"
        elif told == "bool":
            found[name] = not parameter.default
        else:
            found[name] = VALUES[told]
    return found


def _typed(told: str) -> list[tuple[str, str]]:
    if told == "Unpack[Paging]":
        kinds = {"limit": "int", "after": "str", "since": "datetime"}
        assert kinds.keys() == Paging.__annotations__.keys()
        return list(kinds.items())
    return []


@pytest.fixture
async def asked() -> list[tuple[str, httpx.Request]]:
    """Every request that the client can make: by the name of the method, each with all its options."""
    found: list[tuple[str, httpx.Request]] = []
    calling = ""

    def answer(request: httpx.Request) -> httpx.Response:
        found.append((calling, request))
        return httpx.Response(404, json={"error": {"message": "m"}})

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    told = {service: f"http://{service}" for service in SERVICES if service != "console"}
    client = AsyncClient("http://console", "k", http=http, **told)
    for name in (name for name in dir(client) if not name.startswith("_")):
        resource = getattr(client, name)
        methods = (
            [m for m in dir(resource) if not m.startswith("_")] if hasattr(resource, "_transport") else []
        )
        for method in methods:
            calling = f"{name}.{method}"
            with contextlib.suppress(ClientError):
                call = getattr(resource, method)
                result = call(**arguments(call))
                if hasattr(result, "__anext__"):
                    await anext(result)
                else:
                    await result
    plain = {"me": (), "login_link": (), "ask": ("x-1", "x-1"), "feedback": ("x-1", "up")}
    for calling, values in plain.items():
        with contextlib.suppress(ClientError):
            await getattr(client, calling)(*values)
    calling, file = "publish_file", arguments(client.publish_file) | {"attributes": {"a": "b"}}
    with contextlib.suppress(ClientError):
        await client.publish_file(**file)
    for item in ITEMS:
        calling = "publish"
        with contextlib.suppress(ClientError):
            await client.publish("x-1", [item])
    calling = "login"
    with contextlib.suppress(ClientError):
        await login_async("http://console", as_="x", key="k", http=http)
    return found


def matching(request: httpx.Request, served: dict[Operation, set[str]]) -> Operation | None:
    """Return the operation that answers a request; one with fixed words goes before one with names."""
    found = [
        one
        for one in served
        if one[:2] == (request.url.host, request.method)
        and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", one[2]), request.url.path)
    ]
    return min(found, key=lambda one: one[2].count("{"), default=None)


async def test_every_operation_has_a_method_and_every_method_an_operation(
    served: dict[Operation, set[str]], asked: list[tuple[str, httpx.Request]]
):
    assert len(served) > 40
    covered = {matching(request, served) for _, request in asked}
    missing = served.keys() - covered - LEFT_OUT.keys()
    nowhere = {name for name, request in asked if matching(request, served) is None}
    assert (sorted(missing), sorted(nowhere)) == ([], [])
    assert sorted(LEFT_OUT.keys() - served.keys()) == []


async def test_every_query_parameter_can_be_given(
    served: dict[Operation, set[str]], asked: list[tuple[str, httpx.Request]]
):
    given: dict[Operation, set[str]] = {}
    for _, request in asked:
        operation = matching(request, served)
        if operation is not None:
            given.setdefault(operation, set()).update(request.url.params.keys())
    lacking = {one: sorted(served[one] - names) for one, names in given.items() if served[one] - names}
    assert lacking == {}
    unknown = {one: sorted(names - served[one]) for one, names in given.items() if names - served[one]}
    assert unknown == {}

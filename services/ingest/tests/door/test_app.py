"""What the API says of itself holds, whatever is sent (schemathesis, in this process)."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tunewheel_contracts.principal import SET_BY_DOORS
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore

from .conftest import Log, make_app

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


@schemathesis.serializer("application/x-ndjson")
def json_lines(_: object, value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


LIMITS = {"max_body_bytes": 64 << 10, "publish_batch": 3, "max_document_bytes": 64 << 10}
schema = schemathesis.openapi.from_asgi(
    "/openapi.json", make_app(Log(), ObjectStore("memory://"), HttpSettings(identity="open"), **LIMITS)
)


def test_every_route_and_body_is_described() -> None:
    described = schema.raw_schema["paths"]
    assert set(described) == {
        "/v1/tickets", "/v1/documents", "/v1/examples", "/v1/erasures", "/v1/documents/files",
        "/v1/documents/{document_id}", "/v1/projects/{project}/sources/{name}",
    }  # fmt: skip
    for path, routes in described.items():
        for method, route in routes.items():
            assert ("requestBody" in route) == (method == "post"), path
            said = {
                status: answer["content"]["application/json"]["schema"]
                for status, answer in route["responses"].items()
            }
            assert set(said) - {"404"} == {"202", "401", "403", "413", "422", "429", "503"}
            receipt, error = (
                {"$ref": f"#/components/schemas/{name}"} for name in ("Receipt", "ErrorResponse")
            )
            assert said.pop("401") == error
            assert said.pop("403")["anyOf"] == said.pop("503")["anyOf"] == [receipt, error]
            assert all(schema == receipt for schema in said.values())
            assert [set(scheme) for scheme in route["security"]] == [{"HTTPBearer"}]
    assert not [name for name in schema.raw_schema["components"]["schemas"] if "rincipal" in name]
    for event in ("TicketPublished", "ErasureRequested"):
        assert SET_BY_DOORS.isdisjoint(schema.raw_schema["components"]["schemas"][event]["properties"])
    scheme = schema.raw_schema["components"]["securitySchemes"]["HTTPBearer"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


@schema.parametrize()
@settings(
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_any_request_gets_a_described_answer(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=CHECKS)

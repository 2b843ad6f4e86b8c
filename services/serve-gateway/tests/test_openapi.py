"""What the API says of itself: the committed document is the served one, and holds whatever is sent."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tunewheel_serve_gateway.openapi import document

COMMITTED = Path(__file__).parents[1] / "openapi.json"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = settings.default.max_examples // 10
"""Of each route; ten times as many in ``make fuzz``."""
ROUTES = {
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/search",
    "/v1/models",
    "/v1/models/{name}",
    "/v1/status",
    "/v1/feedback",
}


def test_the_committed_document_is_what_the_code_validates_by():
    assert COMMITTED.read_bytes() == document(), (
        "write it anew: python -m tunewheel_serve_gateway.openapi > services/serve-gateway/openapi.json"
    )


async def test_the_document_is_served(world: Any):
    async with world.session.get(f"{world.url}/openapi.json") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        described = await response.json()
    assert described == json.loads(COMMITTED.read_bytes())
    assert described["openapi"] == "3.1.0"
    assert set(described["paths"]) == ROUTES


@pytest.mark.hypothesis
async def test_any_request_gets_a_described_answer(world: Any):
    """schemathesis asks in a thread of its own; the gateway answers on this loop."""
    schema = schemathesis.openapi.from_dict(json.loads(document()))
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == len(ROUTES)

    def ask(operation: Any) -> None:
        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def holds(case: Any) -> None:
            case.call_and_validate(base_url=world.url, checks=CHECKS)

        holds()

    for operation in operations:
        await asyncio.to_thread(ask, operation)
    assert world.broker.failures == []

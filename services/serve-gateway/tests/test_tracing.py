"""One trace from the client's request over the engine to its completion on the log."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.request_ids import HttpSpans, RequestIds
from tunewheel_runtime.telemetry import make_telemetry
from tunewheel_serve_gateway.api import make_api
from tunewheel_serve_gateway.completions.kept import FRAME, kept_of
from tunewheel_testing.served import serving

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("traced", [True, False])
async def test_a_completion_is_in_the_trace_of_its_request(world: Any, traced: bool):
    spans = InMemorySpanExporter()
    telemetry = make_telemetry("test", None, span_processors=[SimpleSpanProcessor(spans)])
    api = make_api(world.gateway)
    guard(api.routes, Access(world.gateway._settings, warn=print))
    async with serving(HttpSpans(api, telemetry.tracer) if traced else api) as url:
        world.url = url
        headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
        async with await world.chat(headers=headers) as response:
            completion_id = (await response.json())["id"]
    kept = world.gateway._recent.get(completion_id)
    carried = kept.record.headers.get("traceparent", b"").decode()
    assert kept_of(kept.frame()[FRAME.size :]).record == kept.record, "also over the disk"
    assert world.engine.traces == [carried], "the engine is in it too"
    if not traced:
        assert carried == ""
        return
    (span,) = spans.get_finished_spans()
    assert carried.split("-")[1:3] == [TRACE, format(span.context.span_id, "016x")]


async def test_the_engine_gets_the_id_of_the_request_with_an_end_of_its_own(world: Any):
    api = make_api(world.gateway)
    guard(api.routes, Access(world.gateway._settings, warn=print))
    async with serving(RequestIds(api)) as url:
        world.url = url
        for _ in range(2):
            async with await world.chat(headers={"x-request-id": "mine-1"}) as response:
                assert response.headers["x-request-id"] == "mine-1"
    first, second = world.engine.request_ids
    assert first.startswith("mine-1-")
    assert second.startswith("mine-1-")
    assert first != second

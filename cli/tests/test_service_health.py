"""`tunewheel status` asks the processes themselves how they are, here and elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from tunewheel_cli.service_health import (
    local_urls,
    offset_of,
    parse_health_urls,
)
from tunewheel_local.connection import InvalidOption
from tunewheel_local.kafka.ports import free_port
from tunewheel_runtime.service import Service
from tunewheel_testing.waiting import until
from uvicorn import Config, Server


@asynccontextmanager
async def answering(service: Service) -> AsyncIterator[str]:
    """The service's port of health; yields its address."""
    port = free_port()
    server = Server(Config(service.doors.health_asgi(), port=port, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


def test_the_broker_has_no_port_of_health() -> None:
    services = {"curate": {"health_url": "http://127.0.0.1:8102"}, "broker": {"url": "127.0.0.1:9092"}}
    assert local_urls(services) == {"curate": "http://127.0.0.1:8102"}


def test_health_urls_are_taken_with_or_without_their_path() -> None:
    assert parse_health_urls(None) == ()
    assert parse_health_urls("http://a:9090/health/ready, https://b/") == ("http://a:9090", "https://b")
    assert parse_health_urls("http://a:9090/health/ready,http://a:9090/") == ("http://a:9090",)
    for wrong in ("a:9090", "http://[::1"):
        with pytest.raises(InvalidOption, match=r"--health-urls: .* is no URL; write http://host:port"):
            parse_health_urls(wrong)
    for secret in ("http://me:pass@a:9090", "me:pass@a:9090"):
        with pytest.raises(InvalidOption, match="holds a name or password") as refused:
            parse_health_urls(secret)
        assert "pass@" not in str(refused.value)


def test_a_date_without_a_zone_is_utc() -> None:
    offset = offset_of({"Date": f"{datetime.now(UTC) + timedelta(hours=3):%a, %d %b %Y %H:%M:%S} -0000"})
    assert offset is not None
    assert abs(offset - timedelta(hours=3)) < timedelta(minutes=5)
    assert offset_of({"Date": "yesterday"}) is offset_of({}) is None

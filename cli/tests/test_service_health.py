"""`tunewheel status` asks the processes themselves how they are, here and elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from tunewheel_cli.commands.tables import print_status
from tunewheel_cli.connection import InvalidOption
from tunewheel_cli.kafka.ports import free_port
from tunewheel_cli.service_health import as_services, ask_health, health_urls, local_urls, warnings_of
from tunewheel_cli.wheel_report import WheelReport
from tunewheel_runtime.service import Service
from tunewheel_runtime.settings import ServiceSettings
from uvicorn import Config, Server


@asynccontextmanager
async def answering(service: Service) -> AsyncIterator[str]:
    """The service's port of health; yields its address."""
    port = free_port()
    server = Server(Config(service.health_asgi(), port=port, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


async def test_what_a_service_warns_of_is_shown_until_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service("curate", ServiceSettings(store_url="memory://"))
    service.warn("dead letters on t of project 'desk'", "[6] of the latest 6 messages were refused")
    async with answering(service) as url:
        told = await ask_health([url])
        warnings = warnings_of({"curate": told[0]})
        assert warnings == {"curate": ["[6] of the latest 6 messages were refused"]}
        print_status(None, WheelReport(warnings=warnings))
        assert "curate warns: [6] of the latest 6 messages were refused" in capsys.readouterr().out
        service.warn("dead letters on t of project 'desk'", None)
        assert warnings_of({"curate": (await ask_health([url]))[0]}) == {}


async def test_processes_elsewhere_are_shown_as_those_of_this_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    first, second = (Service("curate", ServiceSettings(store_url="memory://")) for _ in range(2))
    async with answering(first) as one, answering(second) as other:
        told = await ask_health([one, other, gone])
    services = as_services(told)
    assert set(services) == {f"curate {one}", f"curate {other}", gone}, "two of one name are told apart"
    assert [service["state"] for service in services.values()] == ["not ready", "not ready", "no answer"]
    assert "Cannot connect" in services[gone]["note"]
    assert told[0].clock is not None
    assert abs(told[0].clock - datetime.now(UTC)) < timedelta(minutes=5)
    print_status(None, WheelReport(services=services))
    assert "no answer" in capsys.readouterr().out


def test_the_broker_has_no_port_of_health() -> None:
    services = {"curate": {"health_url": "http://127.0.0.1:8102"}, "broker": {"url": "127.0.0.1:9092"}}
    assert local_urls(services) == {"curate": "http://127.0.0.1:8102"}


def test_health_urls_are_taken_with_or_without_their_path() -> None:
    assert health_urls(None) == ()
    assert health_urls("http://a:9090/health/ready, https://b/") == ("http://a:9090", "https://b")
    with pytest.raises(InvalidOption, match="--health-urls: 'a:9090' is no URL; write http://host:port"):
        health_urls("a:9090")

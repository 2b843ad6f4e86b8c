"""`tunewheel status` asks the processes themselves how they are, here and elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from tunewheel_cli import wheel_report
from tunewheel_cli.commands.tables import print_status
from tunewheel_cli.service_health import (
    as_services,
    ask_health,
    by_name,
    local_urls,
    offset_of,
    parse_health_urls,
    warnings_of,
)
from tunewheel_cli.wheel_report import WheelReport
from tunewheel_local.connection import InvalidOption
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.run_state import RunState
from tunewheel_runtime.service import Service
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_testing.waiting import until
from uvicorn import Config, Server


@asynccontextmanager
async def answering(service: Service) -> AsyncIterator[str]:
    """The service's port of health; yields its address."""
    port = free_port()
    server = Server(Config(service.health_asgi(), port=port, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
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
    services = as_services(by_name(told))
    assert set(services) == {f"curate {one}", f"curate {other}", gone}, "two of one name are told apart"
    assert [service["state"] for service in services.values()] == ["not ready", "not ready", "no answer"]
    assert "Cannot connect" in services[gone]["note"]
    assert told[0].offset is not None
    assert abs(told[0].offset) < timedelta(minutes=5)
    print_status(None, WheelReport(services=services))
    assert "no answer" in capsys.readouterr().out


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


async def test_a_process_elsewhere_does_not_hide_the_one_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are called curate; and one address is given twice, as the wheel's and by --health-urls."""

    async def nothing(*_: object, **__: object) -> list[object]:
        return []

    async def no_events(*_: object) -> AsyncIterator[object]:
        for event in ():
            yield event

    for name, function in {
        "read_lag": nothing,
        "dead_letter_counts": nothing,
        "read_topics": no_events,
    }.items():
        monkeypatch.setattr(wheel_report, name, function)
    here, elsewhere = (Service("curate", ServiceSettings(store_url="memory://")) for _ in range(2))
    here.warn("disk", "the disk is full")
    elsewhere.warn("lag", "is behind")
    async with answering(here) as one, answering(elsewhere) as other:
        local = {"pid": 7, "url": one, "health_url": one, "state": "ready", "restarts": 0, "note": ""}
        wheel = RunState(1, 1.0, "running", "localhost:9092", services={"curate": local})
        report = await wheel_report.read_report({}, wheel, (one, other), None)
    assert report.services["curate"] == local
    assert set(report.services) == {"curate", f"curate {other}"}
    assert report.warnings == {"curate": ["the disk is full"], f"curate {other}": ["is behind"]}

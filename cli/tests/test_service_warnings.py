"""`tunewheel status` asks the services themselves what they warn of."""

from __future__ import annotations

import asyncio

import pytest
from tunewheel_cli.commands.tables import print_status
from tunewheel_cli.kafka.ports import free_port
from tunewheel_cli.service_warnings import read_warnings
from tunewheel_runtime.service import Service
from tunewheel_runtime.settings import ServiceSettings
from uvicorn import Config, Server


async def test_what_a_service_warns_of_is_shown_until_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service("curate", ServiceSettings(store_url="memory://"))
    service.warn("dead letters on t of project 'desk'", "[6] of the latest 6 messages were refused")
    port = free_port()
    server = Server(Config(service.health_asgi(), port=port, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    services = {
        "curate": {"health_url": f"http://127.0.0.1:{port}"},
        "broker": {"url": "127.0.0.1:9092"},
        "gone": {"health_url": f"http://127.0.0.1:{free_port()}"},
    }
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        told = await read_warnings(services)
        assert told == {"curate": ["[6] of the latest 6 messages were refused"]}
        print_status(None, [], {}, {}, told)
        assert "curate warns: [6] of the latest 6 messages were refused" in capsys.readouterr().out
        service.warn("dead letters on t of project 'desk'", None)
        assert await read_warnings(services) == {}
    finally:
        server.should_exit = True
        await serving

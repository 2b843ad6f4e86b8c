"""The registry as it is, except that it dies, or reaches Kafka through proxies. A module of its own: a fork
imports it without the tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiokafka import conn
from tunewheel_registry.main import make_app
from tunewheel_registry.settings import Settings
from tunewheel_runtime.kafka import PRODUCED
from tunewheel_runtime.process import run
from tunewheel_runtime.service import Service


def serve(environment: dict[str, str], log: Path, left: int) -> None:
    """Be the service until event number ``left`` was acknowledged, and die with -9 then."""
    service = _made(environment, log)
    publish = service.publish

    async def publish_and_die(envelopes: Sequence[Any]) -> None:
        """Publish a decision event by event, as earlier releases did: they may have left half of it."""
        nonlocal left
        for envelope in envelopes:
            await publish(envelope)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    service.publish_many = publish_and_die
    run(service)


def serve_through(environment: dict[str, str], log: Path, ports: Mapping[int, int]) -> None:
    """Be the service. ``ports``: the proxy's by the broker's. A proxy looks for text in what passes."""
    PRODUCED["compression_type"] = None
    connect = conn.AIOKafkaConnection.connect

    async def connect_to_proxy(connection: Any) -> Any:
        connection._port = ports[connection._port]
        return await connect(connection)

    conn.AIOKafkaConnection.connect = connect_to_proxy
    run(_made(environment, log))


def _made(environment: dict[str, str], log: Path) -> Service:
    os.environ.update(environment)
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    return make_app(Settings())

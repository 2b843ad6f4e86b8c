"""How to reach the broker, and how to leave it: one place turns settings into client options."""

# aiokafka has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportPrivateUsage=false

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaConsumer

from tunewheel_runtime.settings import ServiceSettings


def client_options(settings: ServiceSettings) -> dict[str, Any]:
    """Return the keyword arguments that every aiokafka client takes."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "security_protocol": settings.security_protocol,
    }
    if "SSL" in settings.security_protocol.split("_"):
        cafile = str(settings.ssl_cafile) if settings.ssl_cafile else None
        options["ssl_context"] = ssl.create_default_context(cafile=cafile)
    if settings.security_protocol.startswith("SASL"):
        password = settings.sasl_password
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": password.get_secret_value() if password else None,
        }
    return options


def producer_options(settings: ServiceSettings, *, max_message_bytes: int) -> dict[str, Any]:
    """Return options of a producer that loses nothing: all replicas acknowledge, retries cannot double.

    No ``linger_ms``: it makes awaited sequential publishes crawl; batches form under load by themselves.
    """
    return client_options(settings) | {
        "acks": "all",
        "enable_idempotence": True,
        "max_request_size": max_message_bytes,
        "max_batch_size": 262_144,
    }


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop ``consumer``, in an outage too; see ``stop_in_full``."""
    await stop_in_full(consumer.stop)
    await consumer._client.close()  # where it was not reached


async def stop_in_full(stop: Callable[[], Awaitable[object]]) -> None:
    """Call ``stop`` until it returns.

    aiokafka 0.14 cancels its fetches and awaits them. One that waits to try again, as in an outage, lets its
    CancelledError out, and whoever called ``stop`` would be taken for cancelled: a service that starts would
    give up without a word, a consume loop would end.
    """
    while True:
        try:
            await stop()
            return
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise

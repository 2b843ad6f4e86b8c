"""How to reach the broker: one place turns settings into client options."""

from __future__ import annotations

import ssl
from typing import Any

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

"""Builds the FastStream broker of a service: its connection options and its logging."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog
from aiokafka.errors import KafkaError
from faststream.kafka import KafkaBroker
from faststream.security import BaseSecurity, SASLOAuthBearer, SASLPlaintext, SASLScram256, SASLScram512

from tunewheel_runtime.kafka import POLL_MS, LongPolling, client_options
from tunewheel_runtime.kafka_refusals import not_allowed
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.topic_names import client_id

log = structlog.get_logger(__name__)


def make_broker(name: str, settings: ServiceSettings, failed: Callable[[BaseException], None]) -> KafkaBroker:
    """Build the broker of the service ``name``. ``failed`` is called with an error for a missing Kafka
    right."""
    options = client_options(settings)
    return _Broker(
        options["bootstrap_servers"],
        security=_security(options),
        sasl_oauth_token_provider=options.get("sasl_oauth_token_provider"),
        client_id=client_id(f"tunewheel-{name}", settings.topic_prefix),
        apply_types=False,
        graceful_timeout=settings.shutdown_seconds,
        allow_auto_create_topics=False,
        logger=_Troubles(failed),
    )


class _Subscribed(LongPolling):
    """The consumer of a subscription. FastStream sleeps after a poll for a batch that found none, and would
    miss what is published meanwhile. So such a poll waits until there is a record."""

    async def getmany(self, *partitions: Any, timeout_ms: int = 0, max_records: int | None = None) -> Any:
        whole: Any = super()
        while not (found := await whole.getmany(*partitions, timeout_ms=POLL_MS, max_records=max_records)):
            pass
        return found


class _Broker(KafkaBroker):
    async def _connect(self) -> Any:
        builder: Any = await super()._connect()
        self.config.broker_config.builder = partial(_Subscribed, **builder.keywords)
        return self.config.broker_config.builder

    async def start(self) -> None:
        """Start all subscribers at once. FastStream would start one after the other, and takeovers wait."""
        await self.connect()
        await asyncio.gather(*(subscriber.start() for subscriber in self.subscribers))
        self.running = True


def _security(options: Mapping[str, Any]) -> BaseSecurity | None:
    """Return FastStream's security object for aiokafka's ``options``."""
    context = options.get("ssl_context")
    tls: dict[str, Any] = {"ssl_context": context, "use_ssl": context is not None}
    mechanism = options.get("sasl_mechanism")
    if mechanism is None:
        return BaseSecurity(**tls) if context else None
    if mechanism == "OAUTHBEARER":
        return SASLOAuthBearer(**tls)
    kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    return kinds[mechanism](
        username=options["sasl_plain_username"], password=options["sasl_plain_password"], **tls
    )


class _Troubles:
    """FastStream's logger. It drops the line per message and logs only errors in reading.

    FastStream goes on reading after any error. A missing Kafka right is therefore reported to ``failed``.
    """

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed

    def log(self, level: int, msg: Any, /, *, exc_info: Any = None, extra: object = None) -> None:
        if not isinstance(exc_info, KafkaError):
            return
        if refusal := not_allowed(exc_info):
            self._failed(refusal)
        else:
            log.warning("consume_failed", error=str(exc_info))

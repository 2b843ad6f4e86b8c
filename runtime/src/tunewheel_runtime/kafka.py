"""Turns the settings into options of Kafka clients, and stops clients cleanly."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.fetch import FetchRequest
from pydantic import SecretStr
from tunewheel_contracts.errors import FieldError

from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.kafka_tokens import token_provider
from tunewheel_runtime.topic_names import client_id


class InvalidSetting(FieldError):
    """A setting has an unusable value. ``field``: the setting."""


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the keyword arguments that every aiokafka client takes. Raises InvalidSetting: a certificate or
    key cannot be read, or they do not belong together."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "security_protocol": settings.security_protocol,
        "client_id": client_id("tunewheel", settings.topic_prefix),
    }
    if "SSL" in settings.security_protocol.split("_"):
        options["ssl_context"] = _ssl_context(settings)
    if settings.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        if settings.sasl_mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = token_provider(settings)
        else:
            options["sasl_plain_username"] = settings.sasl_username
            options["sasl_plain_password"] = _secret(settings.sasl_password)
    return options


def foreign_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return ``client_options`` for topics of other systems, whose names have no prefix."""
    return client_options(settings.model_copy(update={"topic_prefix": ""}))


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        file: Path | None = getattr(settings, name)
        try:
            if file is not None:
                file.read_bytes()  # Checked here, because the ssl module does not say which file is missing.
        except OSError as error:
            raise InvalidSetting(name, f"{file} cannot be read: {error.strerror}") from error
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
    except ssl.SSLError as error:
        reason = f"{settings.ssl_cafile} is not a PEM file of certificates"
        raise InvalidSetting("ssl_cafile", reason) from error
    if settings.ssl_certfile is not None:
        # Only used for an encrypted key. Without a password OpenSSL would ask for one at the terminal.
        password = _secret(settings.ssl_keyfile_password) or ""
        try:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, lambda: password)
        except (ssl.SSLError, ValueError) as error:
            raise _unusable(settings, error) from error
    return context


def _unusable(settings: KafkaSettings, error: Exception) -> InvalidSetting:
    """Return an error that names the wrong one of certificate, key and password, as far as OpenSSL reports
    it."""
    cause = str(getattr(error, "reason", None) or error)
    if cause == "KEY_VALUES_MISMATCH":
        reason = f"{settings.ssl_keyfile} is not the key of ssl_certfile {settings.ssl_certfile}"
    elif settings.ssl_keyfile_password is None:
        reason = (
            f"{settings.ssl_keyfile} or ssl_certfile {settings.ssl_certfile} is not a usable PEM file "
            f"({cause}); if the key is encrypted, set ssl_keyfile_password"
        )
    else:
        reason = f"{settings.ssl_keyfile} cannot be opened with ssl_keyfile_password ({cause})"
    return InvalidSetting("ssl_keyfile", reason)


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value is not None else None


def producer_options(settings: KafkaSettings, *, max_message_bytes: int) -> dict[str, Any]:
    """Return the options of a producer that loses and duplicates nothing: all replicas acknowledge, and
    retries are idempotent.

    ``linger_ms`` is not set, because it would slow down publishes that are awaited one after the other. Under
    load batches form anyway.
    """
    return client_options(settings) | PRODUCED | {"max_request_size": max_message_bytes}


PRODUCED: dict[str, Any] = {
    "acks": "all", "enable_idempotence": True, "max_batch_size": 256 * 1024, "compression_type": "gzip",
}  # fmt: skip
"""Options of every producer. Every release reads gzip, also one that is rolled back to (ADR 53)."""
COMMITTED: dict[str, Any] = {"isolation_level": "read_committed"}
"""Upstream systems may write in transactions (Kafka Streams, Flink, Connect). What they abort is no event."""


POLL_MS = 20_000
"""Longest wait of the broker for a record, before it answers a fetch with none. aiokafka gives up a request
after 40 s."""
LOOK_MS = 5_000
"""How often a consumer looks at its fetches if nothing happens."""
_FETCHES: Any = max(ConnectionGroup) + 1


class LongPolling(AIOKafkaConsumer):
    """A consumer that costs almost nothing while no record arrives: its fetch waits on the broker for
    ``POLL_MS``, and is answered as soon as a record is published.

    The broker answers the requests of a connection in order. So fetches have a connection of their own, and
    an abandoned fetch takes its connection along. A fetch leaves out partitions whose records wait here, and
    would learn of their next records only at its end. So it waits long only if no record waits, and if the
    last fetch has found none.
    """

    def __init__(self, *names: str, **options: Any) -> None:
        waits: dict[str, Any] = {**options, "consumer_timeout_ms": LOOK_MS}
        super().__init__(*names, **waits)
        self._idle_nodes: set[int] = set()
        client: Any = self._client
        self._send, client.send = client.send, self._send_apart

    async def _send_apart(self, node: int, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        if not isinstance(request, FetchRequest):
            return await self._send(node, request, group=group)
        fetcher: Any = self._fetcher
        if node in self._idle_nodes and not fetcher._records:
            request._max_wait_ms = POLL_MS
        self._idle_nodes.discard(node)
        try:
            answer: Any = await self._send(node, request, group=_FETCHES)
        except asyncio.CancelledError:
            connections: dict[Any, Any] = self._client._conns
            if connection := connections.pop((node, _FETCHES), None):
                connection.close()
            raise
        if not any(partition[-1] for _, partitions in answer.topics for partition in partitions):
            self._idle_nodes.add(node)
        return answer


def make_consumer(
    options: Mapping[str, Any], *names: str, long_polling: bool = True, **others: Any
) -> AIOKafkaConsumer:
    """Return a consumer that belongs to no group, unless ``others`` name one, and sees no aborted record.

    The ends that it reports are those of committed records. Transactions leave offsets without a record, so
    only the consumer's position, never a record's offset, says that it has reached an end.

    Args:
        options: aiokafka's client options.
        names: topics to subscribe to.
        long_polling: whether a fetch may wait on the broker for ``POLL_MS``. Do not move such a consumer:
            its new position waits for the fetch that is under way.
        others: further options, which replace the usual ones.
    """
    usual: dict[str, Any] = {"group_id": None, "enable_auto_commit": False, "auto_offset_reset": "earliest"}
    kind = LongPolling if long_polling else AIOKafkaConsumer
    return kind(*names, **{**usual, **COMMITTED, **options, **others})


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop ``consumer``, even during an outage; see ``stop_in_full``."""
    # aiokafka 0.14 cancels its fetches once. While they leave a former assignment they miss that, and go on.
    fetches: asyncio.Task[None] | None = getattr(consumer._fetcher, "_fetch_task", None)
    while fetches is not None and not fetches.done():
        fetches.cancel()
        await asyncio.wait([fetches], timeout=0.1)
    await stop_in_full(consumer.stop)
    await consumer._client.close()  # ``stop`` leaves it open if the broker was never reached.


async def stop_in_full(stop: Callable[[], Awaitable[object]]) -> None:
    """Call ``stop`` until it returns.

    aiokafka 0.14 cancels its fetches and awaits them. A fetch that waits for a retry, as in an outage, lets
    its CancelledError escape from ``stop``. The caller of ``stop`` would then seem to be cancelled: a
    starting service would give up silently, and a consume loop would end.
    """
    while True:
        try:
            await stop()
            return
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise

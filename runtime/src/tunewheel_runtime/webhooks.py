"""Notifies a project's webhook that work waits for people, by a signed CloudEvent over HTTP in structured
mode.

A notice holds ids and counts, but no texts of customers. Sources: CloudEvents 1.0, HTTP protocol binding,
§3.2; Standard Webhooks 1.0 (``webhook-id``, ``webhook-timestamp``, ``webhook-signature``).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import httpx
import structlog
from pydantic import AfterValidator, SecretStr
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope

from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.retry import Backoff, retry
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.waiting import first_of

log = structlog.get_logger(__name__)
PATIENCE_SECONDS = 10.0
BACKOFF = Backoff(attempts=5, first=1.0, longest=30.0)
AT_ONCE = 8
_RETRIED = frozenset({408, 425, 429})
_SECRET_PREFIX = "whsec_"
_PORTS = {"http": 80, "https": 443}
Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[list[Address]]]


def _usable(secret: SecretStr | None) -> SecretStr | None:
    text = secret.get_secret_value() if secret is not None else ""
    if text.startswith(_SECRET_PREFIX):
        try:
            base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
        except ValueError:
            raise ValueError(f"begins with {_SECRET_PREFIX}, but the rest is not base64") from None
    return secret


class WebhookSettings(ServiceSettings):
    """Settings of a service that calls webhooks."""

    webhook_hosts: str = ""
    """Hosts that a spec's webhooks may have, separated by commas: names, addresses, networks. If a name
    resolves to a private address, that address must be listed too. Empty: no webhook is called."""
    webhook_secret: Annotated[SecretStr | None, AfterValidator(_usable)] = None
    """Key of the signatures (Standard Webhooks): ``whsec_`` and base64, or any text."""
    console_url: str = ""
    """URL of the console for people, such as ``https://console.example.org``; notices link to it."""

    @property
    def webhook_host_list(self) -> tuple[str, ...]:
        return tuple(part.strip().lower() for part in self.webhook_hosts.split(",") if part.strip())

    def page(self, path: str) -> str | None:
        """Return the URL of a page of the console; None where ``console_url`` is not set."""
        return f"{self.console_url.rstrip('/')}/{path}" if self.console_url else None


@dataclass(frozen=True, slots=True)
class Notice:
    """The content of a notice. It is the same for every attempt, as its id is."""

    event: Envelope[Any]
    """The event that caused the notice; its id, source and time are the notice's too."""
    type: str
    """Type of the CloudEvent. It differs from the event's type, because the notice holds less data."""
    subject: str
    field: str
    """The field of the spec that holds the URL, for error messages."""
    data: Mapping[str, Any]
    """The data of the CloudEvent. Values that are None are left out."""

    def body(self) -> bytes:
        """Return the CloudEvent as JSON."""
        attributes = {
            "specversion": "1.0",
            "id": self.event.id,
            "source": self.event.source,
            "type": self.type,
            "subject": self.subject,
            "time": self.event.time.isoformat(),
            "datacontenttype": "application/json",
            "data": {name: value for name, value in self.data.items() if value is not None},
        }
        return json.dumps(attributes, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Target:
    """A URL whose host is allowed, and the address that was checked."""

    url: httpx.URL
    host: str
    """The host in the URL, for which the certificate must be valid."""
    authority: str
    """Host and port in the URL."""


async def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of ``host``. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ip_address(address[0]) for *_, address in found]
    return [getattr(one, "ipv4_mapped", None) or one for one in addresses]


class Webhook:
    """Sends notices to hosts that the service's operator allows.

    ``hosts``: names, addresses and networks. If a name resolves to a private address, that address or its
    network must be listed too. Otherwise the author of a spec, or the owner of a name server, could reach
    private hosts through this service.
    """

    def __init__(
        self, *, hosts: tuple[str, ...], secret: str, backoff: Backoff = BACKOFF, resolve: Resolve = resolve
    ) -> None:
        self._hosts, self._secret = hosts, secret
        self._networks = [network for one in hosts if (network := _network_of(one)) is not None]
        self._backoff, self._resolve = backoff, resolve
        self._free = asyncio.Semaphore(AT_ONCE)

    @classmethod
    def of(cls, settings: WebhookSettings) -> Self:
        """Build a webhook client from ``settings``."""
        secret = settings.webhook_secret
        return cls(
            hosts=settings.webhook_host_list, secret=secret.get_secret_value() if secret is not None else ""
        )

    async def tell_under(self, lease: Lease, notice: Notice, url: str) -> bool:
        """Like ``tell``, but stops when ``lease`` is lost. Raises LeaseLost: the partition moved, or the
        service is stopping. The next process that reads the event sends the notice."""
        status, _ = await first_of(self.tell(notice, url), lease.lost.wait())
        if status is None:
            lease.check()
        assert status is not None
        return status

    async def tell(self, notice: Notice, url: str) -> bool:
        """Send ``notice``. If the host is not allowed or does not accept it, log an error and return
        False."""

        async def attempt() -> None:
            await self._send(notice, await self._target(url, notice.field))

        labels = {"type": notice.type, "subject": notice.subject, "notice": notice.event.id}
        try:
            async with self._free:
                await retry(attempt, self._backoff, what="telling the webhook")
        except (InvalidEvent, TransientError) as error:
            log.error("webhook_not_told", **labels, reason=str(error))
            return False
        log.info("webhook_told", **labels)
        return True

    async def _target(self, url: str, field: str) -> Target:
        """Return the address to connect to.

        Raises:
            InvalidEvent: the URL is invalid or not allowed; ``field`` names the spec's field or the setting.
            TransientError: the host's name cannot be resolved.
        """
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError as error:
            raise InvalidEvent(field=field, reason=f"is no URL: {error}") from error
        if parts.scheme not in _PORTS or not host or "@" in parts.netloc:
            raise InvalidEvent(field=field, reason="must be an http or https URL without a user name")
        if not self._secret:
            raise InvalidEvent(
                field="TUNEWHEEL_WEBHOOK_SECRET", reason="is not set; nothing is sent unsigned"
            )
        if host not in self._hosts and not self._lists(_address_of(host)):
            reason = f"does not list {host}; nothing is sent there"
            raise InvalidEvent(field="TUNEWHEEL_WEBHOOK_HOSTS", reason=reason)
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise TransientError(f"{host} has no address: {error}") from error
        for address in addresses:
            if not address.is_global and not self._lists(address):
                reason = f"lists {host}, but not {address}, the private address that it resolves to"
                raise InvalidEvent(field="TUNEWHEEL_WEBHOOK_HOSTS", reason=reason)
        try:
            parts.netloc.encode("ascii")  # It becomes a header.
            # Connect to the address that was checked: resolving the name again could give another address.
            target = httpx.URL(url).copy_with(host=str(addresses[0]), port=port)
        except (httpx.InvalidURL, ValueError) as error:
            raise InvalidEvent(field=field, reason=f"is no URL: {error}") from error
        return Target(target, host, parts.netloc)

    def _lists(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)

    async def _send(self, notice: Notice, target: Target) -> None:
        body = notice.body()
        headers = {
            "Host": target.authority,
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            **signed(notice.event.id, body, secret=self._secret, at=int(time.time())),
        }
        extensions = {"sni_hostname": target.host}
        try:
            # No redirects, which could leave the allowed hosts, nor a proxy, which would resolve the name.
            async with httpx.AsyncClient(
                follow_redirects=False, trust_env=False, timeout=PATIENCE_SECONDS
            ) as client:
                answer = await client.post(target.url, content=body, headers=headers, extensions=extensions)
        except httpx.HTTPError as error:
            raise TransientError(f"{type(error).__name__}: {error}") from error
        if answer.is_success:
            return
        if answer.status_code >= 500 or answer.status_code in _RETRIED:
            raise TransientError(f"answered {answer.status_code}")
        raise InvalidEvent(field=notice.field, reason=f"{target.host} answered {answer.status_code}")


def _address_of(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _network_of(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def signed(message_id: str, body: bytes, *, secret: str, at: int) -> dict[str, str]:
    """Return the headers with the signature of ``body`` and the time (``at``, Unix seconds). A ``secret``
    that begins with ``whsec_`` is decoded; any other is used as it is."""
    key = secret.encode()
    if secret.startswith(_SECRET_PREFIX):
        key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX))
    digest = hmac.digest(key, f"{message_id}.{at}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }

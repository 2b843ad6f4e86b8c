"""Tells a project's webhook that people are waited for: a CloudEvent over HTTP in structured mode, signed.

Sources: CloudEvents 1.0, HTTP protocol binding, §3.2; Standard Webhooks 1.0 (``webhook-id``,
``webhook-timestamp``, ``webhook-signature``). Nothing of what customers wrote is told, only ids and counts.
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
            raise ValueError(f"begins with {_SECRET_PREFIX}, but what follows is not base64") from None
    return secret


class WebhookSettings(ServiceSettings):
    """Settings of a service that tells webhooks."""

    webhook_hosts: str = ""
    """Hosts that a spec's webhooks may name, separated by commas: names, addresses, networks. A name that
    leads to a private address counts only where that address is listed too. Empty: none."""
    webhook_secret: Annotated[SecretStr | None, AfterValidator(_usable)] = None
    """Signs what webhooks are told, as Standard Webhooks has it; ``whsec_`` and base64, or any text."""
    console_url: str = ""
    """Where people reach the console, such as ``https://console.example.org``: webhooks are told it."""

    @property
    def webhook_host_list(self) -> tuple[str, ...]:
        return tuple(part.strip().lower() for part in self.webhook_hosts.split(",") if part.strip())

    def page(self, path: str) -> str | None:
        """Return the address of a page of the console; None where nobody said where the console is."""
        return f"{self.console_url.rstrip('/')}/{path}" if self.console_url else None


@dataclass(frozen=True, slots=True)
class Notice:
    """What a receiver is told. Equal for every attempt, so that its id always means the same."""

    event: Envelope[Any]
    """What happened: it gives the notice its id, source and time."""
    type: str
    """Of the CloudEvent: what is told outside is less than the event on the log says."""
    subject: str
    field: str
    """The field of the spec that names the URL, for complaints."""
    data: Mapping[str, Any]
    """What is None is left out."""

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
    """A URL whose host may be told, and the address that was checked."""

    url: httpx.URL
    host: str
    """As the URL names it: what the certificate has to be for."""
    authority: str
    """Host and port as the URL names them."""


async def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of ``host``. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ip_address(address[0]) for *_, address in found]
    return [getattr(one, "ipv4_mapped", None) or one for one in addresses]


class Webhook:
    """Sends to hosts that the service's operator lists.

    ``hosts`` are names, addresses and networks. A name that leads to an address of a private network counts
    only where that address, or its network, is listed too: whoever writes a spec, or runs a name server, is
    not to reach what only this machine can reach.
    """

    def __init__(
        self,
        *,
        hosts: tuple[str, ...],
        secret: str,
        backoff: Backoff = BACKOFF,
        resolve: Resolve = resolve,
    ) -> None:
        self._hosts, self._secret = hosts, secret
        self._networks = [network for one in hosts if (network := _network_of(one)) is not None]
        self._backoff, self._resolve = backoff, resolve
        self._free = asyncio.Semaphore(AT_ONCE)

    @classmethod
    def of(cls, settings: WebhookSettings) -> Self:
        """Return what sends as ``settings`` say."""
        secret = settings.webhook_secret
        return cls(
            hosts=settings.webhook_host_list,
            secret=secret.get_secret_value() if secret is not None else "",
        )

    async def tell_under(self, lease: Lease, notice: Notice, url: str) -> bool:
        """Like ``tell``, for as long as ``lease`` holds.

        Raises:
            LeaseLost: the partition moved, or the service stops; whoever reads the event next tells it.
        """
        told, _ = await first_of(self.tell(notice, url), lease.lost.wait())
        if told is None:
            lease.check()
        assert told is not None
        return told

    async def tell(self, notice: Notice, url: str) -> bool:
        """Send ``notice``; False, and a line in the log, where it was refused or nobody took it."""

        async def attempt() -> None:
            await self._send(notice, await self._target(url, notice.field))

        told = {"type": notice.type, "subject": notice.subject, "notice": notice.event.id}
        try:
            async with self._free:
                await retry(attempt, self._backoff, what="telling the webhook")
        except (InvalidEvent, TransientError) as error:
            log.error("webhook_not_told", **told, reason=str(error))
            return False
        log.info("webhook_told", **told)
        return True

    async def _target(self, url: str, field: str) -> Target:
        """Return where to connect.

        Raises:
            InvalidEvent: nothing may be sent there; ``field`` names the spec's field or the setting.
            TransientError: the name server gives no address.
        """
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError as error:
            raise InvalidEvent(field=field, reason=f"is no URL: {error}") from error
        if parts.scheme not in _PORTS or not host or "@" in parts.netloc:
            raise InvalidEvent(field=field, reason="is no http or https URL without a user name")
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
                reason = f"lists {host}, but not {address}, the private address that it leads to"
                raise InvalidEvent(field="TUNEWHEEL_WEBHOOK_HOSTS", reason=reason)
        try:
            parts.netloc.encode("ascii")  # it becomes a header
            # By the address that was checked: a second look at the name could lead elsewhere.
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
            # Redirects lead past the list, and a proxy from the environment past the address.
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
    """Return the headers by which a receiver tells that ``body`` came from here, and when (seconds since
    1970). ``secret`` is taken as it is, or decoded where it begins with ``whsec_``."""
    key = secret.encode()
    if secret.startswith(_SECRET_PREFIX):
        key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX))
    digest = hmac.digest(key, f"{message_id}.{at}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }

"""Tells a project's webhook that a review waits: a CloudEvent over HTTP in structured mode, signed.

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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

import httpx
import structlog
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import ReviewRequested
from tunewheel_runtime.retry import Backoff, retry

log = structlog.get_logger(__name__)
TYPE = "review.waiting"
"""Of the CloudEvent: what is told outside is less than ``review.requested`` on the log says."""
PATIENCE_SECONDS = 10.0
BACKOFF = Backoff(attempts=5, first=1.0, longest=30.0)
AT_ONCE = 8
_RETRIED = frozenset({408, 425, 429})
_SECRET_PREFIX = "whsec_"
_PORTS = {"http": 80, "https": 443}
Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[list[Address]]]


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
    """Sends to hosts that eval's operator lists.

    ``hosts`` are names, addresses and networks. A name that leads to an address of a private network counts
    only where that address, or its network, is listed too: whoever writes a spec, or runs a name server, is
    not to reach what only this machine can reach.
    """

    def __init__(
        self,
        *,
        hosts: tuple[str, ...],
        secret: str,
        console_url: str = "",
        backoff: Backoff = BACKOFF,
        resolve: Resolve = resolve,
    ) -> None:
        self._hosts, self._secret, self._console = hosts, secret, console_url.rstrip("/")
        self._networks = [network for one in hosts if (network := _network_of(one)) is not None]
        self._backoff, self._resolve = backoff, resolve
        self._free = asyncio.Semaphore(AT_ONCE)

    async def tell(self, event: Envelope[ReviewRequested], url: str) -> bool:
        """Send ``event``; False, and a line in the log, where it was refused or nobody took it."""

        async def attempt() -> None:
            await self._send(event, await self._target(url))

        try:
            async with self._free:
                await retry(attempt, self._backoff, what="telling the webhook")
        except (InvalidEvent, TransientError) as error:
            log.error("webhook_not_told", review_id=event.data.review_id, reason=str(error))
            return False
        log.info("webhook_told", review_id=event.data.review_id)
        return True

    async def _target(self, url: str) -> Target:
        """Return where to connect.

        Raises:
            InvalidEvent: nothing may be sent there; ``field`` names the spec's field or the setting.
            TransientError: the name server gives no address.
        """
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError as error:
            raise InvalidEvent(field="review.webhook", reason=f"is no URL: {error}") from error
        if parts.scheme not in _PORTS or not host or "@" in parts.netloc:
            raise InvalidEvent(field="review.webhook", reason="is no http or https URL without a user name")
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
            raise InvalidEvent(field="review.webhook", reason=f"is no URL: {error}") from error
        return Target(target, host, parts.netloc)

    def _lists(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)

    async def _send(self, event: Envelope[ReviewRequested], target: Target) -> None:
        body = body_of(event, console_url=self._console)
        headers = {
            "Host": target.authority,
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            **signed(event.id, body, secret=self._secret, at=int(time.time())),
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
        raise InvalidEvent(field="review.webhook", reason=f"{target.host} answered {answer.status_code}")


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


def body_of(event: Envelope[ReviewRequested], *, console_url: str) -> bytes:
    """Return the CloudEvent as JSON: equal bytes for every attempt, so that its id always means the same."""
    asked = event.data
    told = {
        "project": asked.project,
        "run_id": asked.run_id,
        "review_id": asked.review_id,
        "items": asked.items,
        "reviewers": asked.reviewers,
        "url": f"{console_url}/reviews/{asked.project}/{asked.review_id}" if console_url else None,
    }
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": TYPE,
        "subject": asked.run_id,
        "time": event.time.isoformat(),
        "datacontenttype": "application/json",
        "data": {name: value for name, value in told.items() if value is not None},
    }
    return json.dumps(attributes, separators=(",", ":")).encode()


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

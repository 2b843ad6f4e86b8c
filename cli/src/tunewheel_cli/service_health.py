"""What services say of themselves at ``/health/ready``: whether they are ready, and what they warn of."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from tunewheel_cli.connection import InvalidOption
from tunewheel_cli.http import open_session

PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """``error``: why nothing is known of a process that does not answer."""

    url: str
    service: str = ""
    ready: bool = False
    role: str = ""
    """``active`` or ``standby``, where one process of the service is active at a time."""
    warnings: tuple[str, ...] = ()
    error: str = ""
    clock: datetime | None = None
    """Its own, to the second."""

    @property
    def state(self) -> str:
        return "no answer" if self.error else "ready" if self.ready else "not ready"


def health_urls(told: str | None) -> tuple[str, ...]:
    """Return the addresses in ``--health-urls``, with or without the path.

    Raises:
        InvalidOption: one is no URL.
    """
    urls = tuple(url.strip().removesuffix("/health/ready").rstrip("/") for url in (told or "").split(","))
    urls = tuple(url for url in urls if url)
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidOption(
                f"--health-urls: {url!r} is no URL; write http://host:port, several separated by commas"
            )
    return urls


async def ask_health(urls: Sequence[str]) -> list[ServiceHealth]:
    """Ask the processes whose port of health is at ``urls``; return what each says, in that order."""
    import aiohttp

    async with open_session(timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)) as session:
        return await asyncio.gather(*(_ask(session, url) for url in urls))


async def _ask(session: Any, url: str) -> ServiceHealth:
    import aiohttp

    try:
        async with session.get(f"{url}/health/ready") as answer:
            told = await answer.json()
            return ServiceHealth(
                url, str(told.get("service", "")), bool(told["ready"]), str(told.get("role", "")),
                tuple(str(text) for text in told.get("warnings", ())), clock=clock_of(answer.headers),
            )  # fmt: skip
    except aiohttp.ClientConnectorCertificateError as error:
        return ServiceHealth(
            url,
            error=f"{url} shows a certificate that is not trusted here ({error.certificate_error}); name its "
            "authority in TUNEWHEEL_HTTP_CAFILE",
        )
    except (aiohttp.ClientError, TimeoutError) as error:
        return ServiceHealth(url, error=str(error) or f"no answer within {PATIENCE_SECONDS:g} s")
    except (ValueError, AttributeError, TypeError, KeyError):
        return ServiceHealth(url, error="answers otherwise than a service's port of health does")


def clock_of(headers: Mapping[str, str]) -> datetime | None:
    """Return the ``Date`` of an answer, None where it tells none."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(headers["Date"])
    except (KeyError, ValueError):
        return None


def local_urls(services: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the ports of health of ``services``, those of ``RunState``, by name; the broker has none."""
    urls = {name: str(service.get("health_url") or "") for name, service in services.items()}
    return {name: url for name, url in urls.items() if url.startswith("http")}


def as_services(answers: Sequence[ServiceHealth]) -> dict[str, dict[str, Any]]:
    """Return processes elsewhere as ``RunState`` has those of this machine."""
    count = Counter(answer.service for answer in answers)
    names = [
        one.service if count[one.service] == 1 and one.service else f"{one.service} {one.url}".strip()
        for one in answers
    ]
    return {
        name: {"pid": None, "url": one.url, "health_url": one.url, "state": one.state, "restarts": 0,
               "note": one.error or one.role}
        for name, one in zip(names, answers, strict=True)
    }  # fmt: skip


def warnings_of(named: Mapping[str, ServiceHealth]) -> dict[str, list[str]]:
    """Return what processes warn of, by the names given; a certificate that is not trusted counts too."""
    told = {name: list(one.warnings) for name, one in named.items()}
    for name, one in named.items():
        if "TUNEWHEEL_HTTP_CAFILE" in one.error:
            told[name].append(one.error)
    return {name: warnings for name, warnings in told.items() if warnings}

"""Reads the readiness and the warnings of services from ``/health/ready``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tunewheel_local.http import HTTP_CAFILE, open_session, parse_urls

PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """The health of one process. ``error``: why it is unknown."""

    url: str
    service: str = ""
    ready: bool = False
    warnings: tuple[str, ...] = ()
    error: str = ""
    offset: timedelta | None = None
    """By how much its clock is ahead of this machine's, to the second."""


def parse_health_urls(text: str | None) -> tuple[str, ...]:
    """Return the addresses in ``--health-urls``, which may lack the path, without repetitions.

    Raises:
        InvalidOption: see ``parse_urls``.
    """
    urls = parse_urls(text, option="--health-urls", advice="leave it out, for ports of health ask for none")
    return tuple(dict.fromkeys(url.removesuffix("/health/ready").rstrip("/") for url in urls))


async def ask_health(urls: Sequence[str]) -> list[ServiceHealth]:
    """Return the health of the processes with health ports at ``urls``, in that order."""
    import aiohttp

    async with open_session(timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)) as session:
        return await asyncio.gather(*(_ask(session, url) for url in urls))


async def _ask(session: Any, url: str) -> ServiceHealth:
    import aiohttp

    try:
        async with session.get(f"{url}/health/ready") as answer:
            offset = offset_of(answer.headers)
            body = await answer.json()
            return ServiceHealth(
                url, str(body.get("service", "")), bool(body["ready"]),
                tuple(str(text) for text in body.get("warnings", ())), offset=offset,
            )  # fmt: skip
    except aiohttp.ClientConnectorCertificateError as error:
        return ServiceHealth(
            url,
            error=f"{url} shows a certificate that is not trusted here ({error.certificate_error}); name its "
            f"authority in {HTTP_CAFILE}",
        )
    except (aiohttp.ClientError, TimeoutError) as error:
        return ServiceHealth(url, error=str(error) or f"no answer within {PATIENCE_SECONDS:g} s")
    except (ValueError, AttributeError, TypeError, KeyError):
        return ServiceHealth(url, error="answers otherwise than a service's port of health does")


def offset_of(headers: Mapping[str, str]) -> timedelta | None:
    """Return by how much the ``Date`` of an answer that has just arrived is ahead of this machine's clock;
    None: it has no ``Date``."""
    from email.utils import parsedate_to_datetime

    now = datetime.now(UTC)
    try:
        date = parsedate_to_datetime(headers["Date"])
    except (KeyError, ValueError):
        return None
    return date.replace(tzinfo=date.tzinfo or UTC) - now  # -0000 is UTC, and parsed without a zone


def local_urls(services: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the health URLs of ``services`` of a ``RunState``, by name. The broker has none."""
    urls = {name: str(service.get("health_url") or "") for name, service in services.items()}
    return {name: url for name, url in urls.items() if url.startswith("http")}


def warnings_of(named: Mapping[str, ServiceHealth]) -> dict[str, list[str]]:
    """Return the warnings of processes by name. An untrusted certificate counts as a warning."""
    warnings_by_name = {name: list(one.warnings) for name, one in named.items()}
    for name, one in named.items():
        if HTTP_CAFILE in one.error:
            warnings_by_name[name].append(one.error)
    return {name: warnings for name, warnings in warnings_by_name.items() if warnings}

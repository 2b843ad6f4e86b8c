"""What running services warn of: troubles in which they go on, told at ``/health/ready``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tunewheel_cli.http import open_session

PATIENCE_SECONDS = 5.0


async def read_warnings(services: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the warnings by service; ``services`` are those of ``RunState``. One that does not answer, or
    speaks no HTTP, warns of nothing: its state says how it fares."""
    import aiohttp

    async def ask(session: aiohttp.ClientSession, url: str) -> list[str]:
        try:
            async with session.get(f"{url}/health/ready") as answer:
                return [str(text) for text in (await answer.json()).get("warnings", ())]
        except aiohttp.ClientConnectorCertificateError as error:
            return [
                f"{url} shows a certificate that is not trusted here ({error.certificate_error}); name its "
                "authority in TUNEWHEEL_HTTP_CAFILE"
            ]
        except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError, TypeError):
            return []

    urls = {name: str(service.get("health_url") or "") for name, service in services.items()}
    urls = {name: url for name, url in urls.items() if url.startswith("http")}
    async with open_session(timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)) as session:
        told = await asyncio.gather(*(ask(session, url) for url in urls.values()))
    return {name: warnings for name, warnings in zip(urls, told, strict=True) if warnings}

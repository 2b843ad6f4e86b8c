"""The command's own HTTP: a service that speaks TLS is verified, also by an authority of one's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tunewheel_cli.service_health import ask_health
from tunewheel_local.http import open_session
from tunewheel_local.roster import url
from tunewheel_local.supervisor import HttpProgram
from tunewheel_runtime.doors import Door
from tunewheel_runtime.service import Service
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.tls import InvalidTls, certificate_of


@contextlib.asynccontextmanager
async def health(files: tuple[Path, Path]) -> AsyncIterator[int]:
    """Yield the port of a service's health, told over TLS."""
    certfile, keyfile = files
    settings = ServiceSettings(store_url="memory://", tls_certfile=certfile, tls_keyfile=keyfile)
    service = Service("curate", settings)
    service.health.warn("lag", "is behind")
    certificate = certificate_of(settings, warn=service.health.warn)
    door = Door(service.doors.health_asgi(), host="127.0.0.1", port=0, patience=5, certificate=certificate)
    closing = asyncio.Event()
    serving = asyncio.create_task(door.serve(closing))
    try:
        yield door.port
    finally:
        closing.set()
        await serving


async def test_an_authority_of_ones_own_is_trusted_where_it_is_named(
    authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with health(authority.issue("localhost", "127.0.0.1")) as port:
        told = f"https://localhost:{port}"
        (curate,) = await ask_health([told])
        assert "TUNEWHEEL_HTTP_CAFILE" in curate.error, "and not as if it warned of nothing"
        async with open_session() as http:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await http.get(f"{told}/health/live")
        monkeypatch.setenv("TUNEWHEEL_HTTP_CAFILE", str(authority.cafile))
        (curate,) = await ask_health([told])
        assert (curate.service, curate.error, curate.warnings) == ("curate", "", ("is behind",))
        async with open_session() as http, http.get(f"{told}/health/live") as answer:
            assert answer.status == 200


async def test_a_certificate_for_another_name_is_refused_by_whom_trusts_its_authority(
    authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWHEEL_HTTP_CAFILE", str(authority.cafile))
    async with health(authority.issue("other.example")) as port, open_session() as http:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.get(f"https://localhost:{port}/health/live")


async def test_a_file_without_an_authority_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNEWHEEL_HTTP_CAFILE", str(tmp_path / "absent"))
    with pytest.raises(InvalidTls, match="TUNEWHEEL_HTTP_CAFILE"):
        open_session()


async def test_the_supervisor_takes_only_the_certificate_that_its_programs_have(
    authority: Any, tmp_path: Path
) -> None:
    files = authority.issue("desk.example")
    async with health(files) as port:

        async def is_ready(certfile: Path) -> bool:
            env = {"TUNEWHEEL_TLS_CERTFILE": str(certfile)}
            live = f"https://localhost:{port}/health/live"
            return await HttpProgram("x", [], env=env, log=tmp_path / "log", ready_url=live).is_ready()

        assert await is_ready(files[0])
        assert not await is_ready(authority.issue("desk.example")[0])
        assert not await is_ready(tmp_path / "absent"), "and the supervisor goes on"


def test_a_wheel_that_speaks_tls_is_called_by_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEWHEEL_TLS_CERTFILE", raising=False)
    assert url(8100) == "http://127.0.0.1:8100"
    monkeypatch.setenv("TUNEWHEEL_TLS_CERTFILE", "tls.pem")
    assert url(8100) == "https://localhost:8100"

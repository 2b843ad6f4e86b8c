"""Whom the command line sends a key to, and how a refusal reaches the person at the terminal."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from tunewheel_cli.publishing.items import FoundFile
from tunewheel_cli.publishing.upload import Uploader
from tunewheel_contracts.errors import TransientError
from tunewheel_demo.gateway import GatewayClient
from tunewheel_local.connection import InvalidOption, NoWheel
from tunewheel_local.endpoint import Endpoint, NotAllowed
from tunewheel_local.places import Var
from tunewheel_local.run_state import RunState, started
from tunewheel_local.wheel_secrets import make_secrets
from tunewheel_testing.http import answering

USER_KEY = "tw-of-the-user"
UNKNOWN = {"error": {"message": "this API key is unknown; ask for a new one", "type": "authentication_error"}}
LACKING = {"error": {"message": "bob lacks the role application in project 'p'; ask for it"}}


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Var:
    monkeypatch.delenv("TUNEWHEEL_API_KEY", raising=False)
    return Var(tmp_path / "var")


def note(var: Var, *, supervisor: int | None = None, keys_file: Path | None = None, **urls: str) -> None:
    """Write down a wheel that runs in this process, or in ``supervisor``."""
    RunState(
        supervisor_pid=supervisor or os.getpid(),
        supervisor_started=started(os.getpid()) or 0.0,
        phase="running",
        bootstrap_servers="",
        identity="required",
        keys_file=str(keys_file or var.keys_file),
        services={name: {"url": url} for name, url in urls.items()},
    ).write(var.run_file)


def test_the_wheels_key_goes_to_the_wheels_own_addresses_alone(var: Var) -> None:
    key = make_secrets(var, pseudonyms=True).api_key
    note(var, gateway="http://127.0.0.1:8100", ingest="http://127.0.0.1:8101")
    assert Endpoint.of("gateway", var) == Endpoint("gateway", "http://127.0.0.1:8100", key)
    assert Endpoint.of("gateway", var, url="http://127.0.0.1:8100/").key == key
    for other in (
        "http://127.0.0.1:8102", "https://127.0.0.1:8100", "http://gateway.example:8100", "http://localhost:8100",
        "http://127.0.0.1:8100@evil.example", "http://127.0.0.1:81000", "http://127.0.0.1:8100.evil.example",
    ):  # fmt: skip
        assert Endpoint.of("gateway", var, url=other).key is None, other
    assert Endpoint.of("console", var).key is None, "this wheel has none: whoever listens there is another"


def test_nobody_gets_the_key_of_a_wheel_that_does_not_run(var: Var) -> None:
    make_secrets(var, pseudonyms=True)
    gateway = Endpoint.of("gateway", var)
    assert (gateway.url, gateway.key) == ("http://127.0.0.1:8100", None)
    with pytest.raises(NoWheel):
        gateway.require_named()
    Endpoint.of("gateway", var, url=gateway.url).require_named()
    note(var, supervisor=1, gateway="http://127.0.0.1:8100")
    assert Endpoint.of("gateway", var).key is None


def test_the_wheels_key_is_not_sent_where_callers_are_known_by_another_file(var: Var, tmp_path: Path) -> None:
    make_secrets(var, pseudonyms=True)
    note(var, keys_file=tmp_path / "users.yaml", gateway="http://127.0.0.1:8100")
    assert Endpoint.of("gateway", var).key is None


def test_the_key_of_the_environment_wins(var: Var, monkeypatch: pytest.MonkeyPatch) -> None:
    make_secrets(var, pseudonyms=True)
    note(var, gateway="http://127.0.0.1:8100")
    monkeypatch.setenv("TUNEWHEEL_API_KEY", f"{USER_KEY}\n")
    for url in (None, "https://gateway.example"):
        assert Endpoint.of("gateway", var, url=url).headers == {"Authorization": f"Bearer {USER_KEY}"}
    assert USER_KEY not in repr(Endpoint.of("gateway", var))
    monkeypatch.setenv("TUNEWHEEL_API_KEY", "schlüssel")
    with pytest.raises(InvalidOption, match="TUNEWHEEL_API_KEY: holds a character"):
        Endpoint.of("gateway", var)


@asynccontextmanager
async def always(status: int, body: object) -> AsyncIterator[tuple[str, list[str | None]]]:
    """Answer every request so; yields the address, and the keys that were sent."""
    sent: list[str | None] = []

    def answer(request: web.Request, _: object) -> tuple[int, object]:
        sent.append(request.headers.get("Authorization"))
        return status, body

    async with answering(answer) as url:
        yield url, sent


async def _upload(endpoint: Endpoint) -> object:
    async with Uploader(endpoint) as uploader:
        return await uploader.send(FoundFile("a.pdf", Path(__file__), "a.pdf", "application/pdf", 1), "p")


@pytest.mark.parametrize("call", [_upload], ids=["upload"])
async def test_a_refusal_names_the_reason_and_the_key(
    var: Var, monkeypatch: pytest.MonkeyPatch, call: Callable[[Endpoint], object]
) -> None:
    async with always(401, UNKNOWN) as (url, sent):
        note(var, gateway=url)
        with pytest.raises(NotAllowed, match="asks who calls; set TUNEWHEEL_API_KEY to a key that it knows"):
            await call(Endpoint("gateway", url))  # type: ignore[misc]
        make_secrets(var, pseudonyms=True)
        with pytest.raises(NotAllowed, match=r"this API key is unknown.*the wheel's own key was sent to"):
            await call(Endpoint.of("gateway", var))  # type: ignore[misc]
    async with always(403, LACKING) as (url, more):
        monkeypatch.setenv("TUNEWHEEL_API_KEY", USER_KEY)
        with pytest.raises(NotAllowed, match=r"bob lacks the role application.*the key in TUNEWHEEL_API_KEY"):
            await call(Endpoint.of("gateway", var, url=url))  # type: ignore[misc]
    assert [key is None for key in (*sent, *more)] == [True, False, False]


async def test_the_demo_sends_its_key_and_sees_what_others_are_answered(var: Var) -> None:
    async with always(200, {"data": [{"id": "m"}]}) as (url, sent):
        note(var, gateway=url)
        key = make_secrets(var, pseudonyms=True).api_key.get_secret_value()
        async with GatewayClient(Endpoint.of("gateway", var)) as gateway:
            assert await gateway.status_without_key() == 200
            assert await gateway.models() == {"m"}
    assert sent == [None, f"Bearer {key}"]


async def test_the_demo_asks_again_where_the_connection_breaks(var: Var) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        note(var, gateway=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with GatewayClient(Endpoint.of("gateway", var)) as gateway:
            with pytest.raises(TransientError, match="the connection to the gateway broke"):
                await gateway.rate("p", "c-1", "up", by="expert")
            with pytest.raises(TransientError, match="the connection to the gateway broke"):
                await gateway.ask("p", "hi")


def test_a_key_may_lie_in_a_file_of_its_name(
    var: Var, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "TUNEWHEEL_API_KEY").write_text(f"{USER_KEY}\n", "utf-8")
    monkeypatch.setenv("TUNEWHEEL_SECRETS_DIR", str(tmp_path))
    key = Endpoint.of("gateway", var, url="http://gateway.example:8100").key
    assert key is not None
    assert key.get_secret_value() == USER_KEY
    monkeypatch.setenv("TUNEWHEEL_API_KEY", "tw-of-the-variable")
    key = Endpoint.of("gateway", var).key
    assert key is not None
    assert key.get_secret_value() == "tw-of-the-variable"

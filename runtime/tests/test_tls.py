"""Doors that speak TLS, over real sockets: their certificates, their clients, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tunewheel_runtime import doors
from tunewheel_runtime.doors import Door
from tunewheel_runtime.health import ask, main
from tunewheel_runtime.http import PatientHttp
from tunewheel_runtime.identity.guard import set_caller
from tunewheel_runtime.identity.roles import Caller
from tunewheel_runtime.lifecycle import Lifecycle
from tunewheel_runtime.process import run
from tunewheel_runtime.service import Service
from tunewheel_runtime.settings import HttpSettings, ServiceSettings
from tunewheel_runtime.tls import (
    LOOK_SECONDS,
    Certificate,
    InvalidTls,
    certificate_of,
    tell_of_clear_text,
    trust,
)
from tunewheel_testing.clock import Clock
from tunewheel_testing.waiting import until

LOCAL = ("localhost", "127.0.0.1")


class App:
    """What a service does over HTTP: answers, streams, and answers more than anybody reads."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.left_unread = asyncio.Event()
        routes = [
            Route("/scheme", self.scheme, methods=["GET", "POST"]),
            Route("/stream", self.stream),
            Route("/endless", self.endless),
        ]
        self.asgi = Starlette(routes=routes)

    async def scheme(self, request: Request) -> Response:
        body = await request.body()
        return JSONResponse([request.url.scheme, len(body), request.scope["client"][1]])

    async def stream(self, _: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            await self.go_on.wait()
            yield b"two"

        return StreamingResponse(chunks())

    async def endless(self, _: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(1 << 16)
                    await asyncio.sleep(0)
            finally:
                self.left_unread.set()

        return StreamingResponse(chunks())


def certificate(files: tuple[Path, Path], **options: Any) -> Certificate:
    return Certificate(*files, **{"warn": ignore, **options})


def ignore(name: str, text: str | None) -> None:
    """A warning that the test does not ask for."""


@contextlib.asynccontextmanager
async def serving(app: Any, shown: Certificate | None) -> AsyncIterator[int]:
    door = Door(app.asgi, host="127.0.0.1", port=0, patience=30, certificate=shown)
    closing = asyncio.Event()
    task = asyncio.create_task(door.serve(closing))
    try:
        yield door.port
    finally:
        closing.set()
        await task


def client(port: int, cafile: Path) -> httpx.AsyncClient:
    # httpx would have SSL_CERT_FILE in place of what the test trusts.
    verify = ssl.create_default_context(cafile=str(cafile))
    return httpx.AsyncClient(base_url=f"https://localhost:{port}", verify=verify, trust_env=False)


async def test_one_connection_answers_many_requests(authority: Any) -> None:
    shown = certificate(authority.issue(*LOCAL))
    assert shown.context().minimum_version == ssl.TLSVersion.TLSv1_2
    async with serving(App(), shown) as port, client(port, authority.cafile) as http:
        first, second = await http.get("/scheme"), await http.post("/scheme", content=bytes(1 << 20))
        assert first.json()[:2] == ["https", 0]
        assert second.json()[:2] == ["https", 1 << 20]
        assert first.json()[2] == second.json()[2], "the same connection"
        spoken = first.extensions["network_stream"].get_extra_info("ssl_object")
        assert spoken.version() == "TLSv1.3"
        assert spoken.selected_alpn_protocol() in (None, "http/1.1")


async def test_a_program_on_this_machine_cannot_say_that_its_client_is_another_one() -> None:
    forged = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.7:9"}
    async with serving(App(), None) as port, httpx.AsyncClient(trust_env=False) as http:
        scheme, _, client_port = (await http.get(f"http://127.0.0.1:{port}/scheme", headers=forged)).json()
    assert (scheme, client_port == 9) == ("http", False)


class Keys:
    """Lets those in who send any ``Authorization``, as the guard does."""

    @staticmethod
    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        status = 401
        if any(name == b"authorization" for name, _ in scope["headers"]):
            set_caller(scope, Caller(None, ()))
            status = 200
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


@pytest.mark.parametrize("is_tls", [False, True])
async def test_sockets_without_a_key_give_way_and_connections_with_one_stay(
    authority: Any, monkeypatch: pytest.MonkeyPatch, is_tls: bool
) -> None:
    monkeypatch.setattr(doors, "most_clients", lambda: 10)  # eight places
    shown = certificate(authority.issue(*LOCAL)) if is_tls else None
    verify = ssl.create_default_context(cafile=str(authority.cafile)) if is_tls else None
    async with serving(Keys(), shown) as port, contextlib.AsyncExitStack() as stack:

        async def connect_and_ask(*headers: str) -> Any:
            stream = await asyncio.open_connection("localhost", port, ssl=verify)
            stack.callback(stream[1].close)
            return (await ask_again(stream, *headers)), stream

        async def ask_again(stream: Any, *headers: str) -> str:
            stream[1].write("\r\n".join(["GET / HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())
            return (await stream[0].readuntil(b"\r\n\r\n")).decode().split()[1]

        keyed = [await connect_and_ask("Authorization: x") for _ in range(3)]
        assert [status for status, _ in keyed] == ["200"] * 3
        idle = [await asyncio.open_connection("localhost", port) for _ in range(40)]
        for _, writer in idle:
            stack.callback(writer.close)
        assert (await connect_and_ask())[0] == "401"
        gone = [reader for reader, _ in idle[:35]]
        await asyncio.gather(*(asyncio.wait_for(one.read(), 60) for one in gone), return_exceptions=True)
        assert [await ask_again(stream) for _, stream in keyed] == ["401"] * 3, "the connection stays"
        more = [await connect_and_ask("Authorization: x") for _ in range(4)]
        assert [status for status, _ in more] == ["200"] * 4
        with pytest.raises((OSError, EOFError)):  # Its place goes to the newest, and seven have a key.
            await asyncio.wait_for(idle[-1][0].readexactly(1), 60)


async def test_a_connection_that_closes_already_is_not_closed_again_when_the_server_closes(
    authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[PatientHttp] = []

    class Noted(PatientHttp):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr(doors, "PatientHttp", Noted)
    verify = ssl.create_default_context(cafile=str(authority.cafile))
    async with serving(Keys(), certificate(authority.issue(*LOCAL))) as port:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=verify)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401")
        made[0].transport.close()
    writer.close()


async def test_an_answer_comes_piece_by_piece(authority: Any) -> None:
    app = App()
    async with (
        serving(app, certificate(authority.issue(*LOCAL))) as port,
        client(port, authority.cafile) as http,
        http.stream("GET", "/stream") as answer,
    ):
        chunks = answer.aiter_raw()
        assert await anext(chunks) == b"one"
        app.go_on.set()
        assert await anext(chunks) == b"two"


async def test_a_client_that_does_not_trust_the_certificate_sends_nothing(
    authority: Any, tmp_path: Path
) -> None:
    async with serving(App(), certificate(authority.issue("other.example"))) as port:
        async with client(port, authority.cafile) as http:
            with pytest.raises(httpx.ConnectError, match=r"not valid for"):
                await http.get("/scheme")
        verify = ssl.create_default_context()
        async with httpx.AsyncClient(verify=verify, trust_env=False) as http:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await http.get(f"https://localhost:{port}/scheme")


async def raw(port: int, sent: bytes, cafile: Path | None = None) -> bytes:
    """Send ``sent`` and return all that comes back, over TLS where ``cafile`` says whom to trust."""
    verify = ssl.create_default_context(cafile=str(cafile)) if cafile else None
    reader, writer = await asyncio.open_connection("localhost", port, ssl=verify)
    writer.write(sent)
    came = await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return came


@pytest.mark.parametrize("body", [0, 8 << 20], ids=["short", "long"])
async def test_plain_http_is_told_to_speak_tls(authority: Any, body: int) -> None:
    async with serving(App(), certificate(authority.issue(*LOCAL))) as port:
        async with httpx.AsyncClient(trust_env=False) as http:
            refused = await http.post(f"http://127.0.0.1:{port}/scheme", content=bytes(body))
        assert (refused.status_code, "https://" in refused.text) == (400, True)


async def test_neither_silence_nor_half_a_handshake_holds_a_connection(
    authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatientHttp, "patience_seconds", 0.2)
    async with serving(App(), certificate(authority.issue(*LOCAL))) as port:
        for sent in (b"", b"\x16\x03\x01", b"\x16" + bytes(64)):
            with contextlib.suppress(ConnectionError):
                assert b"HTTP" not in await raw(port, sent)


async def test_the_bounds_of_plain_connections_hold(authority: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    app, long = App(), b"GET /scheme HTTP/1.1\r\nx: " + b"x" * PatientHttp.head_bytes
    async with serving(app, certificate(authority.issue(*LOCAL))) as port:
        assert (await raw(port, long, authority.cafile)).startswith(b"HTTP/1.1 431 ")
        monkeypatch.setattr(PatientHttp, "patience_seconds", 0.2)
        assert (await raw(port, b"GET /scheme", authority.cafile)).startswith(b"HTTP/1.1 408 ")
        monkeypatch.setattr(PatientHttp, "patience_seconds", 1.0)  # the handshake and the head come in time
        verify = ssl.create_default_context(cafile=str(authority.cafile))
        reader, writer = await asyncio.open_connection("localhost", port, ssl=verify, limit=1024)
        writer.write(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await until(app.left_unread.is_set)
        writer.transport.abort()
        del reader


async def test_a_door_closes_though_a_client_keeps_its_connection(authority: Any) -> None:
    """A blocking client notices nothing until its next request."""
    verify = ssl.create_default_context(cafile=str(authority.cafile))
    with httpx.Client(verify=verify, trust_env=False) as http:
        async with serving(App(), certificate(authority.issue(*LOCAL))) as port:
            answer = await asyncio.to_thread(http.get, f"https://localhost:{port}/scheme")
            assert answer.status_code == 200


def shown_by(port: int, cafile: Path) -> bytes:
    verify = ssl.create_default_context(cafile=str(cafile))
    with (
        httpx.Client(verify=verify, trust_env=False) as http,
        http.stream("GET", f"https://localhost:{port}/scheme") as answer,
    ):
        der = answer.extensions["network_stream"].get_extra_info("ssl_object").getpeercert(True)
    return ssl.DER_cert_to_PEM_cert(der).encode()


async def test_a_renewed_certificate_is_shown_without_a_restart(authority: Any, tmp_path: Path) -> None:
    certfile, keyfile = tmp_path / "tls.crt", tmp_path / "tls.key"
    first, renewed = authority.issue(*LOCAL), authority.issue(*LOCAL)

    def write(issued: tuple[Path, Path]) -> None:
        for source, target in zip(issued, (certfile, keyfile), strict=True):
            shutil.copyfile(source, target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)

    write(first)
    clock, told = Clock(), list[str | None]()
    shown = certificate((certfile, keyfile), clock=clock, warn=lambda _, text: told.append(text))
    async with serving(App(), shown) as port:

        async def seen() -> bytes:
            clock.now += LOOK_SECONDS
            return await asyncio.to_thread(shown_by, port, authority.cafile)

        async with client(port, authority.cafile) as kept:
            before = (await kept.get("/scheme")).json()
            assert await seen() == first[0].read_bytes()
            write(renewed)
            assert await seen() == renewed[0].read_bytes()
            assert (await kept.get("/scheme")).json() == before, "a connection keeps what it has"
        assert told == [None]

        keyfile.write_bytes(first[1].read_bytes())
        assert await seen() == renewed[0].read_bytes()
        assert await seen() == renewed[0].read_bytes()
        keyfile.unlink()
        assert await seen() == renewed[0].read_bytes()
        assert len(told) == 3, "each state of the files is told once"
        assert "is not the key of the certificate" in str(told[1])
        assert str(keyfile) in str(told[2])
        assert "stays in use" in str(told[2])
        write(first)
        assert await seen() == first[0].read_bytes()
        assert told[3] is None


def files_of(authority: Any, folder: Path, password: str | None = None) -> dict[str, Path]:
    certfile, keyfile = authority.issue(*LOCAL, folder=folder, password=password)
    return {"tls_certfile": certfile, "tls_keyfile": keyfile}


def settings(**values: object) -> HttpSettings:
    return HttpSettings.model_validate(values)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("no key", "TUNEWHEEL_TLS_KEYFILE is not set"),
        ("no certificate", "TUNEWHEEL_TLS_CERTFILE is not set"),
        ("absent", r"TUNEWHEEL_TLS_CERTFILE .*absent.* cannot be read: No such file"),
        ("folder", r"TUNEWHEEL_TLS_KEYFILE .* cannot be read: Is a directory"),
        ("text", r"TUNEWHEEL_TLS_CERTFILE .* holds no certificate"),
        ("swapped", r"TUNEWHEEL_TLS_CERTFILE .* holds no certificate"),
        ("text key", r"TUNEWHEEL_TLS_KEYFILE .* cannot be used"),
        ("another's key", r"TUNEWHEEL_TLS_KEYFILE .* is not the key of the certificate"),
        ("closed", r"TUNEWHEEL_TLS_KEYFILE .* cannot be used .*TUNEWHEEL_TLS_KEYFILE_PASSWORD"),
        ("wrong password", r"TUNEWHEEL_TLS_KEYFILE .* cannot be used .*TUNEWHEEL_TLS_KEYFILE_PASSWORD"),
    ],
)
def test_a_pair_that_cannot_serve_is_refused_by_name(
    authority: Any, tmp_path: Path, wrong: str, told: str
) -> None:
    text = tmp_path / "text"
    text.write_text("certainly no PEM")
    good, closed = files_of(authority, tmp_path), files_of(authority, tmp_path, password="sesame")
    certfile, keyfile = good["tls_certfile"], good["tls_keyfile"]
    values: dict[str, dict[str, object]] = {
        "no key": {"tls_certfile": certfile},
        "no certificate": {"tls_keyfile": keyfile},
        "absent": good | {"tls_certfile": tmp_path / "absent"},
        "folder": good | {"tls_keyfile": tmp_path},
        "text": good | {"tls_certfile": text},
        "swapped": {"tls_certfile": keyfile, "tls_keyfile": certfile},
        "text key": good | {"tls_keyfile": text},
        "another's key": good | {"tls_keyfile": authority.issue(*LOCAL)[1]},
        "closed": closed,
        "wrong password": {**closed, "tls_keyfile_password": "simsim"},
    }
    with pytest.raises(InvalidTls, match=told) as refused:
        certificate_of(settings(**values[wrong]), warn=ignore)
    assert "sesame" not in str(refused.value)
    assert "simsim" not in str(refused.value)


def test_a_password_opens_its_key(authority: Any, tmp_path: Path) -> None:
    closed = files_of(authority, tmp_path, password="sesame")
    assert certificate_of(settings(**closed, tls_keyfile_password="sesame"), warn=ignore) is not None
    assert certificate_of(settings(), warn=ignore) is None


def service(**values: object) -> Service:
    return Service("desk", ServiceSettings.model_validate({"store_url": "memory://", **values}))


def test_a_service_ends_with_code_2_and_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(service(tls_certfile=tmp_path / "absent", tls_keyfile=tmp_path / "absent"))
    assert ended.value.code == 2
    said = [json.loads(line) for line in "".join(capfd.readouterr()).splitlines() if "cannot_start" in line]
    assert ["TUNEWHEEL_TLS_CERTFILE" in line["reason"] for line in said] == [True]


def test_keys_that_travel_in_clear_text_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = structlog.testing.LogCapture()
    monkeypatch.setattr("tunewheel_runtime.tls.log", structlog.wrap_logger(None, [told]))
    for host in ("127.0.0.1", "::1", "localhost"):
        tell_of_clear_text(settings(http_host=host))
    tell_of_clear_text(settings(http_host="0.0.0.0", tls_certfile="x"))
    assert not told.entries
    tell_of_clear_text(settings(http_host="0.0.0.0"))
    (line,) = told.entries
    assert (line["log_level"], line["event"]) == ("warning", "keys_in_clear_text")


async def test_a_probe_trusts_the_very_certificate_of_its_service(authority: Any, tmp_path: Path) -> None:
    """Whatever names it bears: a probe calls 127.0.0.1."""
    shown = files_of(authority, tmp_path)
    shown["tls_certfile"], shown["tls_keyfile"] = authority.issue("desk.example", folder=tmp_path)
    certfile = shown["tls_certfile"]
    certfile.write_bytes(certfile.read_bytes() + authority.cafile.read_bytes())
    desk = service(**shown, health_host="0.0.0.0", bootstrap_servers="localhost:1")
    task = asyncio.create_task(Lifecycle(desk).serve())
    await until(lambda: desk.doors.health_port is not None)
    values = {"health_host": "0.0.0.0", "health_port": desk.doors.health_port}
    try:
        live = await asyncio.to_thread(ask, settings(**shown, **values), "/health/live")
        ready = await asyncio.to_thread(ask, settings(**shown, **values))
        other = files_of(authority, tmp_path)
        another = await asyncio.to_thread(ask, settings(**other, **values), "/health/live")
        plain = await asyncio.to_thread(ask, settings(**values), "/health/live")
        gone = await asyncio.to_thread(
            ask, settings(tls_certfile=tmp_path / "gone", **values), "/health/live"
        )
    finally:
        desk.stop()
        await task
    assert live is None
    assert str(ready).startswith("status 503")
    assert "CERTIFICATE_VERIFY_FAILED" in str(another)
    assert str(plain).startswith("status 400")
    assert "TUNEWHEEL_TLS_CERTFILE" in str(gone)


def test_the_health_check_of_an_image_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEWHEEL_HEALTH_PORT", "1")
    assert main() == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_whom_a_client_trusts_beside_the_system(authority: Any, tmp_path: Path) -> None:
    alone = len(trust(None, setting="TUNEWHEEL_HTTP_CAFILE").get_ca_certs())
    trusted = trust(authority.cafile, setting="TUNEWHEEL_HTTP_CAFILE")
    assert len(trusted.get_ca_certs()) == alone + 1
    assert (trusted.verify_mode, trusted.check_hostname) == (ssl.CERT_REQUIRED, True)
    text = tmp_path / "text"
    text.write_text("certainly no PEM")
    for wrong in (text, tmp_path / "absent"):
        with pytest.raises(InvalidTls, match=f"TUNEWHEEL_HTTP_CAFILE {wrong}"):
            trust(wrong, setting="TUNEWHEEL_HTTP_CAFILE")

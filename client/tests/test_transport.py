"""Requests over a real socket: what is tried again, how answers become errors, and who is told the key."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from tunewheel_client import (
    AsyncClient,
    Away,
    ClientError,
    Conflict,
    NoAddress,
    NotAllowed,
    NotFound,
    Refused,
)
from tunewheel_client.aio.transport import Transport
from tunewheel_client.sync import transport as sync_transport
from tunewheel_client.target import resolve
from tunewheel_client.trust import trusted
from tunewheel_testing.served import served

ME = {"name": "ada", "version": "1", "addresses": {}}


class Door:
    """Answers every request by the next of ``answers``, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Response] = []
        self.asked: list[Request] = []
        self.app = FastAPI()
        self.app.add_route("/{path:path}", self.answer, methods=["GET", "POST"])

    async def answer(self, request: Request) -> Response:
        await request.body()
        self.asked.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    with served(door.app) as url:
        door.url = url  # type: ignore[attr-defined]
        yield door


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits take no time; returns those of the synchronous client."""
    waits: list[float] = []
    monkeypatch.setattr("tunewheel_client.aio.transport.LONGEST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(sync_transport.time, "sleep", waits.append)
    return waits


def failing(status: int, **headers: str) -> Response:
    error = {"message": "m", "type": "t", "param": "p", "code": "c"}
    return JSONResponse({"error": error}, status, headers)


async def test_a_busy_service_is_asked_again(door: Any, make_client: Any, done: Any):
    door.answers = [failing(503), failing(429, **{"retry-after": "0"}), JSONResponse(ME)]
    assert (await done(make_client(door.url, "k").me())).name == "ada"
    assert len(door.asked) == 3


async def test_a_retry_waits_as_long_as_it_is_told_within_bounds(door: Any, impatient: list[float]):
    from tunewheel_client import Client

    told = ["2", "3600", "Tue, 01 Dec 2026 00:00:00 GMT"]
    door.answers = [*(failing(503, **{"retry-after": text}) for text in told), JSONResponse(ME)]
    await asyncio.to_thread(Client(door.url, "k").me)
    assert impatient == [2.0, 10.0, 1.5]


async def test_a_command_that_is_sent_again_keeps_its_name(door: Any, make_client: Any, done: Any):
    told = {"project": "desk", "command_id": "c", "run_id": "run-1", "action": "pause"}
    door.answers = [failing(503), JSONResponse(told, 202)]
    client = make_client(door.url, "k")
    for _ in range(2):
        await done(client.runs.pause("desk", "run-1"))
    first, again, other = [request.headers["idempotency-key"] for request in door.asked]
    assert first == again != other
    await done(client.runs.pause("desk", "run-1", request="Brief Nr. 5, ü"))
    assert "idempotency-key" not in door.asked[-1].headers
    assert await door.asked[-1].json() == {"request": "Brief Nr. 5, ü"}


async def test_what_may_have_arrived_is_sent_again_only_where_that_is_harmless():
    taken: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AsyncClient(url, "k", gateway=url) as client:
            calls = {
                client.runs.pause("desk", "r"): 4, client.runs.show("desk", "r"): 4,
                client.keys.rotate("ada"): 1, client.reviews.submit("desk", "r", "approved"): 1,
                client.ask("desk", "q"): 1,
            }  # fmt: skip
            for call, times in calls.items():
                taken.clear()
                with pytest.raises(Away):
                    await call
                assert len(taken) == times, taken[0]


async def test_a_service_that_stays_busy_is_away(door: Any, make_client: Any, done: Any):
    door.answers = [failing(503, **{"retry-after": "7"})]
    with pytest.raises(Away) as error:
        await done(make_client(door.url, "k").me())
    assert (len(door.asked), error.value.status, error.value.retry_after) == (4, 503, 7.0)


SHAPES = [
    (401, NotAllowed), (403, NotAllowed), (404, NotFound), (410, NotFound), (409, Conflict), (422, Refused),
    (413, Refused), (500, Away),
]  # fmt: skip


@pytest.mark.parametrize(("status", "kind"), SHAPES)
async def test_a_refusal_is_named_by_what_to_do(door: Any, status: int, kind: type[ClientError]):
    door.answers = [failing(status)]
    with pytest.raises(ClientError) as error:
        await AsyncClient(door.url, "k").me()
    assert type(error.value) is kind
    assert (error.value.param, error.value.code, len(door.asked)) == ("p", "c", 1)


BODIES: list[tuple[Any, str, str | None]] = [
    ({"detail": "run_id: is unknown"}, "run_id: is unknown", "run_id"),
    ({"detail": "Not Found"}, "Not Found", None),
    ({"detail": [{"loc": ["body", "a", 0], "msg": "Field required"}]}, "a.0: Field required", "a.0"),
    (
        {"refused": [{"line": 1, "field": "body", "reason": "is empty"}], "accepted": 0},
        "body is empty",
        "body",
    ),
    ({"error": {"message": "m", "param": "a", "faults": [{"param": "a", "message": "x"}]}}, "m", "a"),
    ([1], "status 422", None),
]


@pytest.mark.parametrize(("body", "message", "param"), BODIES)
async def test_errors_of_all_shapes_are_read(door: Any, body: Any, message: str, param: str | None):
    door.answers = [JSONResponse(body, 422)]
    with pytest.raises(Refused) as error:
        await AsyncClient(door.url, "k").me()
    assert error.value.message.endswith(message)
    assert error.value.param == param
    assert error.value.faults == ((("a", "x"),) if message == "m" else ())


async def test_a_page_of_a_proxy_is_an_error_too(door: Any):
    door.answers = [Response("<html>bad gateway" + "x" * 9_000, 502)]
    with pytest.raises(Away) as error:
        await AsyncClient(door.url, "k").me()
    assert len(error.value.message) < 400


async def test_no_redirect_carries_the_key_elsewhere(door: Any, make_client: Any, done: Any):
    door.answers = [RedirectResponse("http://127.0.0.1:1/", 302)]
    with pytest.raises(Refused) as error:
        await done(make_client(door.url, "k").me())
    assert (len(door.asked), error.value.param) == (1, "url")


@pytest.mark.parametrize("text", ["<html>Welcome</html>", "", '{"name": 3}', "[]"])
async def test_what_answers_and_is_no_wheel_is_named(door: Any, text: str):
    door.answers = [Response(text)]
    with pytest.raises(Refused, match="correct the address") as error:
        await AsyncClient(door.url, "k").me()
    assert error.value.param == "url"


async def test_the_console_is_asked_once_for_addresses(door: Any, make_client: Any, done: Any):
    taken = {"accepted": 1, "event_ids": ["e"], "refused": []}
    told = ME | {"addresses": {"ingest": door.url + "/"}}
    door.answers = [JSONResponse(told), JSONResponse(taken, 202)]
    client = make_client(door.url, "k")
    for _ in range(2):
        await done(client.publish("desk", [{"ticket_id": "t", "body": "b"}]))
    assert [request.url.path for request in door.asked] == ["/v1/me", "/v1/tickets", "/v1/tickets"]
    assert {request.headers["authorization"] for request in door.asked} == {"Bearer k"}


async def test_an_address_that_the_console_lacks_must_be_given(door: Any, make_client: Any, done: Any):
    door.answers = [JSONResponse(ME)]
    with pytest.raises(NoAddress) as error:
        await done(make_client(door.url, "k").ask("desk", "q"))
    assert error.value.param == "gateway"


@pytest.mark.parametrize(
    ("told", "refused"),
    [("http://elsewhere.example", True), ("https://elsewhere.example", False), ("http://127.0.0.1:1", False)],
)
async def test_a_console_behind_tls_names_no_address_without(told: str, refused: bool):
    async def me(_: Request) -> JSONResponse:
        return JSONResponse(ME | {"addresses": {"gateway": told}})

    app = Starlette(routes=[Route("/v1/me", me)])
    target = resolve("https://wheel.example", "k", environment={})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
        transport = Transport(target, timeout_seconds=5, http=http)
        if refused:
            with pytest.raises(NoAddress, match="clear text") as error:
                await transport.url_of("gateway")
            assert error.value.param == "gateway"
        else:
            assert await transport.url_of("gateway") == told


async def test_nobody_at_the_address_is_away(make_client: Any, done: Any, impatient: list[float]):
    with pytest.raises(Away, match="nothing answers"):
        await done(make_client("http://127.0.0.1:1", "k").me())


async def test_an_authority_of_ones_own_is_trusted_where_it_is_named(
    authority: Any, monkeypatch: pytest.MonkeyPatch, make_client: Any, done: Any, impatient: list[float]
):
    door = Door()
    door.answers = [JSONResponse(ME)]
    with served(door.app, certificate=authority.issue("127.0.0.1")) as url:
        with pytest.raises(Away, match="CERTIFICATE_VERIFY_FAILED"):
            await done(make_client(url, "k").me())
        monkeypatch.setenv("TUNEWHEEL_HTTP_CAFILE", str(authority.cafile))
        assert (await done(make_client(url, "k").me())).name == "ada"
        monkeypatch.delenv("TUNEWHEEL_HTTP_CAFILE")
        with pytest.raises(Away, match="CERTIFICATE_VERIFY_FAILED"):
            await done(make_client(url, "k").me())
    assert len(door.asked) == 1, "the key went to no stranger"


@pytest.mark.parametrize("is_link", [False, True], ids=["a file", "a link"])
async def test_authorities_of_the_system_that_change_are_read_again(
    is_link: bool, authority: Any, monkeypatch: pytest.MonkeyPatch, home: Any, make_client: Any, done: Any,
    impatient: list[float],
):  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(home / "system.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(home / "no-folder"))

    def renew(content: bytes) -> None:
        if is_link:  # as Kubernetes renews what it mounts
            (home / content.hex()[:8]).write_bytes(content)
            (home / "new").symlink_to(content.hex()[:8])
            (home / "new").replace(home / "system.pem")
        else:
            (home / "system.pem").write_bytes(content)

    door = Door()
    door.answers = [JSONResponse(ME)]
    with served(door.app, certificate=authority.issue("127.0.0.1")) as url:
        for content in (b"none", authority.cafile.read_bytes(), b"again none"):
            renew(content)
            if content.startswith(b"-----BEGIN"):
                assert (await done(make_client(url, "k").me())).name == "ada"
                continue
            with pytest.raises(Away, match="CERTIFICATE_VERIFY_FAILED"):
                await done(make_client(url, "k").me())


def test_a_changed_folder_of_authorities_is_read_again(home: Any, monkeypatch: pytest.MonkeyPatch):
    (home / "certs").mkdir()
    monkeypatch.setenv("SSL_CERT_DIR", str(home / "certs"))
    before = trusted()
    assert trusted() is before, "reading takes longer than a request"
    (home / "certs" / "another.0").touch()
    assert trusted() is not before


async def test_a_file_of_certificates_that_holds_none_is_named(
    monkeypatch: pytest.MonkeyPatch, home: Any, make_client: Any, done: Any
):
    (home / "ca.pem").write_text("none")
    for name in ("ca.pem", "missing.pem"):
        monkeypatch.setenv("TUNEWHEEL_HTTP_CAFILE", str(home / name))
        with pytest.raises(NoAddress, match=name):
            await done(make_client("https://127.0.0.1:1", "k").me())


async def test_a_service_that_does_not_answer_in_time_is_not_waited_for_again(make_client: Any, done: Any):
    """A person who presses TAB waits meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Away):
            await done(make_client(url, "k", timeout_seconds=0.2).me())
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


@pytest.mark.parametrize("name", ["..", ".", ""])
async def test_a_name_that_would_lead_to_another_route_is_not_sent(door: Any, name: str):
    async with AsyncClient(door.url, "k") as client:
        with pytest.raises(Refused) as refused:
            await client.runs.show("desk", name)
    assert refused.value.param == "name"
    assert not door.asked

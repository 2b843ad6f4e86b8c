"""The HTTP client of an engine, against servers that speak HTTP byte by byte as the tests say.

What becomes of an engine's failure for the gateway's client: ``test_chat.py``, ``test_pool.py``,
``test_bad_wire.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tunewheel_serve_gateway.upstream import connections as connections_module
from tunewheel_serve_gateway.upstream.connection import LONGEST_HEAD, MOST_UNREAD
from tunewheel_serve_gateway.upstream.connections import Connections
from tunewheel_serve_gateway.upstream.openai import OpenAiUpstream
from tunewheel_serve_gateway.upstream.protocol import (
    Chunk,
    Timeouts,
    UpstreamAway,
    UpstreamBroken,
    UpstreamError,
    UpstreamLost,
    UpstreamRefused,
    UpstreamSilent,
    failure,
)
from tunewheel_testing.waiting import until

OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = OK + b"Content-Length: 5\r\n\r\nhello"
Answer = Callable[["Server", asyncio.StreamWriter], None]


class Server:
    """Answers the requests of each connection with ``answers``, one after another, and then with silence."""

    def __init__(self, *answers: bytes | Answer) -> None:
        self._answers = list(answers)
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = self.ended = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(int(size or 0)))
                if self._answers:
                    answer = self._answers.pop(0)
                    writer.write(answer) if isinstance(answer, bytes) else answer(self, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended += 1
            writer.close()


@asynccontextmanager
async def engine(
    *answers: bytes | Answer, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", **options: object
) -> AsyncIterator[tuple[Server, Connections]]:
    server = Server(*answers)
    listener = await asyncio.start_server(server.talk, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    scheme = "http" if tls is None else "https"
    known = {
        "headers": {"authorization": "Bearer k"},
        "tls": None,
        "timeouts": Timeouts(),
        "retry_after": "2",
    }
    client = Connections(f"{scheme}://{host}:{port}/base", **(known | options))  # type: ignore[arg-type]
    try:
        yield server, client
    finally:
        client.close()
        listener.close()


async def whole(
    client: Connections, method: str = "POST", body: bytes | None = b"{}", patience: float = 60.0
) -> tuple[int, bytes]:
    connection = await client.ask(method, "/chat", body, headers={"x-a": "1"}, patience=patience)
    try:
        return connection.status, await connection.whole()
    finally:
        client.release(connection)


async def streamed(client: Connections, patience: float = 60.0) -> bytes:
    connection = await client.ask("POST", "/chat", b"{}", headers={}, patience=patience, streams=True)
    try:
        return b"".join([part async for part in connection.parts()])
    finally:
        client.release(connection)


def close_after(raw: bytes) -> Answer:
    def answer(_: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        writer.close()

    return answer


def byte_by_byte(raw: bytes) -> Answer:
    async def write(writer: asyncio.StreamWriter) -> None:
        for n in range(len(raw)):
            writer.write(raw[n : n + 1])
            await writer.drain()
            await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    return lambda _, writer: tasks.append(asyncio.ensure_future(write(writer)))


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
VALID: dict[str, tuple[bytes, int, bytes]] = {
    "a length": (WHOLE, 200, b"hello"),
    "chunks": (CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 200, b"hello"),
    "chunks with extensions and trailers": (
        CHUNKED + b'2;a=b;c="d"\r\nhe\r\n3;e\r\nllo\r\n0;f\r\nX-Sum: 1\r\n\r\n',
        200,
        b"hello",
    ),
    "an empty body": (OK + b"Content-Length: 0\r\n\r\n", 200, b""),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "continue before it": (b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, 200, b"hello"),
    "early hints, twice": (b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 2 + WHOLE, 200, b"hello"),
    "an error": (b"HTTP/1.1 429 Slow\r\nContent-Length: 2\r\n\r\n{}", 429, b"{}"),
    "headers in capitals": (OK + b"CONTENT-LENGTH:5\r\n\r\nhello", 200, b"hello"),
}


@pytest.mark.parametrize("cut", ["at once", "byte by byte"])
@pytest.mark.parametrize(("raw", "status", "body"), VALID.values(), ids=VALID)
async def test_an_answer_is_read_however_it_arrives(raw: bytes, status: int, body: bytes, cut: str):
    answers = [raw, raw] if cut == "at once" else [byte_by_byte(raw), byte_by_byte(raw)]
    async with engine(*answers) as (server, client):
        assert await whole(client) == (status, body)
        assert await streamed(client) == body
        assert server.connections == 1, "the connection was kept"
        assert server.heads[0].startswith(b"POST /base/chat HTTP/1.1\r\nhost: 127.0.0.1:")
        assert b"authorization: Bearer k\r\n" in server.heads[0]
        assert b"x-a: 1\r\n" in server.heads[0]
        assert server.bodies == [b"{}", b"{}"]


async def test_a_body_without_a_length_ends_with_its_connection():
    async with engine(*[close_after(OK + b"\r\nhello")] * 2) as (server, client):
        assert await whole(client) == (200, b"hello")
        assert await streamed(client) == b"hello"
        assert server.connections == 2


BROKEN: dict[str, bytes] = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a length that is none": OK + b"Content-Length: -5\r\n\r\nhello",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a chunk without a size": CHUNKED + b"zz\r\nhello\r\n",
    "a length that is not reached": OK + b"Content-Length: 9\r\n\r\nhello",
    "a chunk that is not reached": CHUNKED + b"9\r\nhello",
    "no last chunk": CHUNKED + b"5\r\nhello\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "compressed": OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
    "a header of a megabyte": OK + b"X-A: " + b"a" * (1 << 20) + b"\r\n\r\n",
    "endless interim answers": b"HTTP/1.1 102 Processing\r\n\r\n" * LONGEST_HEAD,
}


@pytest.mark.parametrize("ask", [whole, streamed])
@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
async def test_an_answer_that_is_none_is_broken(raw: bytes, ask: Callable[[Connections], object]):
    async with engine(close_after(raw), WHOLE) as (server, client):
        with pytest.raises(UpstreamBroken):
            await ask(client)
        assert await whole(client) == (200, b"hello"), "the next request is not affected"
        assert server.connections == 2


@pytest.mark.parametrize(
    "begun", [b"", b"HTTP/1.1 2", OK + b"Content-Len"], ids=["nothing", "status", "header"]
)
async def test_a_connection_that_ends_before_the_answers_head_is_lost(begun: bytes):
    async with engine(close_after(begun)) as (_, client):
        with pytest.raises(UpstreamLost):
            await whole(client)


@pytest.mark.parametrize("more", [b"hello", b"\r\n\r\nx", WHOLE.replace(b"hello", b"other")])
async def test_what_follows_an_answer_is_not_taken_for_the_next(more: bytes):
    async with engine(WHOLE + more, WHOLE) as (server, client):
        assert await whole(client) == (200, b"hello")
        assert await whole(client) == (200, b"hello")
        assert server.connections == 2


async def test_what_arrives_between_requests_is_not_taken_for_an_answer():
    async with engine(lambda s, w: (w.write(WHOLE), late.append(w)), WHOLE) as (server, client):
        late: list[asyncio.StreamWriter] = []
        assert await whole(client) == (200, b"hello")
        late[0].write(WHOLE.replace(b"hello", b"other"))
        await until(lambda: server.ended == 1, "the connection's end")
        assert await whole(client) == (200, b"hello")


async def test_a_connection_is_not_used_again_if_the_engine_closes_it():
    closing = OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello"
    async with engine(closing, WHOLE) as (server, client):
        assert await whole(client) == (200, b"hello")
        assert await whole(client) == (200, b"hello")
        assert server.connections == 2


async def test_of_a_kept_connection_that_is_closed_meanwhile_only_a_reading_request_is_sent_again():
    async with engine(WHOLE, close_after(b""), WHOLE, close_after(b"")) as (server, client):
        assert await whole(client) == (200, b"hello")
        assert await whole(client, "GET", None) == (200, b"hello")
        with pytest.raises(UpstreamLost):  # The engine may have done the work.
            await whole(client)
        assert (server.connections, len(server.heads)) == (2, 4)


async def test_an_idle_connection_is_closed_in_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections_module, "KEEPALIVE_SECONDS", 0.01)
    async with engine(WHOLE, WHOLE) as (server, client):
        assert await whole(client) == (200, b"hello")
        await until(lambda: server.ended == 1, "the connection's end")
        assert await whole(client) == (200, b"hello")


async def test_an_engine_that_is_silent_is_not_waited_for():
    async with engine(lambda *_: None, CHUNKED, CHUNKED + b"5\r\nhello\r\n") as (server, client):
        for ask in (whole, streamed, streamed):
            with pytest.raises(UpstreamSilent):
                await ask(client, patience=0.05)
        await until(lambda: server.ended == 3, "the connections' ends")


def every_few_milliseconds(*parts: bytes) -> Answer:
    """Answer with ``parts`` again and again, each as a chunk of its own, until nobody listens."""

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        for part in itertools.cycle(parts):
            if writer.is_closing():
                return
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            await asyncio.sleep(0.005)

    tasks: list[asyncio.Task[None]] = []
    return lambda _, writer: tasks.append(asyncio.ensure_future(write(writer)))


@asynccontextmanager
async def chat(
    *parts: bytes, patience: float
) -> AsyncIterator[tuple[OpenAiUpstream, AsyncGenerator[Chunk, None]]]:
    """A chat that an engine answers with ``parts``, again and again."""
    async with engine(every_few_milliseconds(*parts)) as (_, client):
        timeouts = Timeouts(first_byte=patience, between_tokens=patience)
        upstream = OpenAiUpstream(f"http://127.0.0.1:{client._port}", timeouts=timeouts)
        chunks = upstream.stream({"model": "m", "messages": []})
        try:
            yield upstream, chunks
        finally:
            await chunks.aclose()
            await upstream.close()


@pytest.mark.parametrize(
    "parts",
    [
        (b": ping\n\n",),
        (b":\n",),
        (b":data: none\n\n",),
        (b": pi", b"ng\n\n"),
        (b"\n: ping\n",),
        (b"\r\n",),
        (b"event: ping\n\n",),
    ],
)
async def test_a_stream_without_an_event_is_silence(parts: tuple[bytes, ...]):
    async with chat(*parts, patience=0.1) as (_, chunks):
        with pytest.raises(UpstreamSilent):
            async with asyncio.timeout(120):
                await anext(chunks)


EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'


@pytest.mark.parametrize(
    "parts",
    [(EVENT,), (b": ping\n\n" + EVENT,), (EVENT[:4], EVENT[4:]), (b": ping\n\ndata", EVENT[4:])],
)
async def test_a_stream_is_heard_by_its_events_however_they_are_cut(parts: tuple[bytes, ...]):
    async with chat(*parts, patience=60.0) as (upstream, chunks):
        await anext(chunks)
        (connection,) = upstream._connections._all
        begun = connection._heard
        for _ in range(10):
            await anext(chunks)
        assert connection._heard > begun


async def test_an_engine_is_not_silent_while_nobody_reads_what_it_sent():
    async with chat(EVENT, patience=60.0) as (upstream, chunks):
        await anext(chunks)
        (connection,) = upstream._connections._all
        await until(lambda: bool(connection._parts), "an event that nobody reads")
        connection._heard -= 1_000
        connection._look()
        await anext(chunks)
        assert connection._heard > asyncio.get_running_loop().time() - 900


async def test_a_longer_wait_does_not_outlast_a_shorter_one():
    async with engine(WHOLE, CHUNKED) as (_, client):
        assert await whole(client, patience=300.0) == (200, b"hello")
        with pytest.raises(UpstreamSilent):
            await streamed(client, patience=0.05)


@pytest.mark.parametrize("ask", [whole, streamed])
async def test_a_cancelled_request_ends_its_connection(ask: Callable[[Connections], object]):
    async with engine(CHUNKED) as (server, client):
        asking = asyncio.ensure_future(ask(client))  # type: ignore[arg-type]
        await until(lambda: bool(server.bodies), "the request")
        asking.cancel()
        await until(lambda: server.ended == 1, "the connection's end")
        assert asking.cancelled()


async def test_a_stream_whose_last_event_came_is_not_waited_for_and_keeps_its_connection():
    writers: list[asyncio.StreamWriter] = []

    def begin(_: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        writers.append(writer)

    async with engine(begin, begin, WHOLE) as (server, client):
        connection = await client.ask("POST", "/chat", b"{}", headers={}, patience=60.0, streams=True)
        assert await anext(connection.parts()) == b"hello"
        client.release(connection, is_ending=True)
        writers[0].write(b"0\r\n\r\n")
        await until(lambda: connection.is_reusable, "the stream's end")
        connection = await client.ask("POST", "/chat", b"{}", headers={}, patience=60.0, streams=True)
        assert server.connections == 1
        assert await anext(connection.parts()) == b"hello"
        client.release(connection)
        await until(lambda: server.ended == 1, "the end of a connection that was not read to the end")


async def test_a_reader_that_is_slow_holds_the_engine_back():
    size = 8 << 20

    def flood(_: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + f"Content-Length: {size}\r\n\r\n".encode() + b"x" * size)

    async with engine(flood) as (_, client):
        connection = await client.ask("POST", "/chat", b"{}", headers={}, patience=60.0, streams=True)
        await until(lambda: connection._is_paused, "the pause")
        assert connection._unread <= MOST_UNREAD + (256 << 10), "one read of the socket more"
        read = 0
        async for part in connection.parts():
            read += len(part)
        assert read == size


async def test_an_engine_that_answers_before_it_has_read_the_body_is_understood():
    early = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(early)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        client = Connections(url, headers={}, tls=None, timeouts=Timeouts(), retry_after="2")
        assert await whole(client, body=b"x" * (16 << 20)) == (413, b"{}")
        client.close()


async def test_nobody_there_is_told_apart_from_a_lost_connection():
    client = Connections("http://127.0.0.1:1", headers={}, tls=None, timeouts=Timeouts(), retry_after="2")
    with pytest.raises(UpstreamAway, match="cannot be reached") as caught:
        await whole(client)
    assert not isinstance(caught.value, UpstreamLost)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's context with a certificate of ``localhost``, and a client's that trusts it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "engine")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "engine.pem"
    pem, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pair = (
        made.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, pem, plain),
    )
    Path(file).write_bytes(b"".join(pair))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cafile=str(file))


async def test_tls_is_for_the_name_that_the_certificate_has(authority: tuple[ssl.SSLContext, ssl.SSLContext]):
    server_side, trusting = authority
    chunks = CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"
    async with engine(WHOLE, chunks, tls=server_side, host="localhost") as (_, stranger):
        with pytest.raises(UpstreamAway, match="TUNEWHEEL_ENGINE_CAFILE"):
            await whole(stranger)
    async with engine(WHOLE, tls=server_side) as (_, misled):
        misled._tls = trusting
        with pytest.raises(UpstreamAway, match=r"127\.0\.0\.1"):
            await whole(misled)
    async with engine(WHOLE, chunks, tls=server_side, host="localhost") as (server, client):
        client._tls = trusting
        assert await whole(client) == (200, b"hello")
        assert await streamed(client) == b"hello"
        assert server.connections == 1


async def test_closing_ends_requests_in_flight():
    async with engine(CHUNKED) as (server, client):
        asking = asyncio.ensure_future(whole(client))
        await until(lambda: bool(server.bodies), "the request")
        client.close()
        with pytest.raises(UpstreamError):
            await asking


@pytest.mark.parametrize("is_ending", [False, True])
async def test_a_kept_connection_reads_again_though_nobody_read_its_last_answer(is_ending: bool):
    """The last bytes of an answer may be too many to wait for its reader, who then leaves."""
    size = MOST_UNREAD + 1
    begun: list[asyncio.StreamWriter] = []

    def begin(_: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + f"Content-Length: {size}\r\n\r\n".encode() + b"x" * (size - 10))
        begun.append(writer)

    async with engine(begin, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", WHOLE, WHOLE) as (server, client):
        connection = await client.ask("POST", "/chat", b"{}", headers={}, patience=60.0, streams=True)
        await until(lambda: connection._unread == size - 10, "most of the answer")
        begun[0].write(b"x" * 10)
        await until(lambda: connection._is_over, "the end of the answer")
        client.release(connection, is_ending=is_ending)
        assert await streamed(client) == b"hello"
        assert await whole(client) == (200, b"hello")
        assert server.connections == 1


@asynccontextmanager
async def deaf(port: int) -> AsyncIterator[None]:
    """Let connections to 127.0.0.2 wait: its listener accepts none, and its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.2", port))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield


@pytest.mark.parametrize("is_deaf", [True, False], ids=["silent", "refused"])
@pytest.mark.parametrize("first", ["127.0.0.1", "127.0.0.2"])
async def test_an_address_that_does_not_answer_holds_up_no_other_of_its_name(
    monkeypatch: pytest.MonkeyPatch, first: str, is_deaf: bool
):
    async with engine(WHOLE, host="engines.test", timeouts=Timeouts(connect=60)) as (server, client):
        port, loop = client._port, asyncio.get_running_loop()

        async def resolve(host: str, at: int, **_: object) -> list[object]:
            found = (
                [host]
                if host != "engines.test"
                else sorted(("127.0.0.1", "127.0.0.2"), key=lambda address: address != first)
            )
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, at)) for address in found]

        monkeypatch.setattr(loop, "getaddrinfo", resolve)
        async with deaf(port) if is_deaf else contextlib.nullcontext():
            assert await whole(client) == (200, b"hello")
        assert server.connections == 1


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize(
    ("key", "body", "said"),
    [
        ("k-gateway", b'{"error": {"message": "no: Bearer k-gateway."}}', "no: Bearer ***."),
        ("a/b+c=d/e", rb'{"error": {"message": "no: Bearer a\/b+c\u003dd\/e"}}', "no: Bearer ***"),
        ("k-gateway", b"<p>" + b"x" * 495 + b"k-gateway</p>", "<p>" + "x" * 495 + "**"),
        (
            "token",
            b'{"error": {"message": "4096 tokens, and token is wrong"}}',
            "4096 tokens, and *** is wrong",
        ),
        ("error", b'{"error": {"message": "too long"}}', "too long"),
        ("4", b'{"error": {"message": "of 4096", "code": 4}}', "of 4096"),
        (None, b'{"error": {"message": "no: Bearer"}}', "no: Bearer"),
    ],
)
def test_a_key_that_an_engine_repeats_is_masked_and_nothing_else(
    key: str | None, body: bytes, said: str, status: int
):
    error = failure(status, body, key=key, retry_after=None, default_retry_after="2")
    assert (error.message if isinstance(error, UpstreamRefused) else error.detail) == said


@pytest.mark.parametrize("code", ["invalid_api_key", 401])
async def test_a_key_that_is_repeated_under_status_200_is_masked(code: str | int):
    said = json.dumps({"error": {"message": "no: Bearer k-gateway", "code": code}}).encode()
    head = OK + f"Content-Length: {len(said)}\r\n\r\n".encode()
    async with engine(head + said) as (_, client):
        upstream = OpenAiUpstream(f"http://127.0.0.1:{client._port}", api_key="k-gateway")
        with pytest.raises(UpstreamError) as caught:
            await upstream.complete({"model": "m", "messages": []})
        await upstream.close()
    assert "no: Bearer ***" in str(caught.value)

"""What comes over the wire and should not, from clients and from engines.

Elsewhere: bodies that are no request (``test_chat_request.py``, ``test_chat.py``), engines that are away,
answer with an error under whatever status, or break off (``test_chat.py``), unknown models
(``test_callers.py``), keys that are unknown or revoked (``runtime/tests/identity/test_guard.py``), slow heads
and bodies, and clients that never read (``runtime/tests/test_http.py``).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

HELLO: Any = [{"role": "user", "content": "hello there"}]
BODY = json.dumps({"model": "desk", "messages": HELLO}).encode()


async def sent(world: Any, raw: bytes) -> tuple[int, dict[str, Any], bytes]:
    """Send ``raw`` over a connection of its own; return the first answer's status and body, and the rest."""
    host, port = world.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(raw)
        head = await reader.readuntil(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        rest = await reader.read() if headers.get("connection") == "close" else b""
        return int(head.split()[1]), json.loads(body), rest
    finally:
        writer.close()


def post(*headers: str, body: bytes = BODY) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    return "\r\n".join([*lines, *headers]).encode() + b"\r\n\r\n" + body


SMUGGLED = b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
AMBIGUOUS: dict[str, bytes] = {
    "a length and chunks": post(
        f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED
    ),
    "chunks and a length": post(
        "Transfer-Encoding: chunked", f"Content-Length: {len(BODY)}", body=b"0\r\n\r\n" + SMUGGLED
    ),
    "two lengths": post("Content-Length: 5", f"Content-Length: {len(BODY)}", body=BODY + SMUGGLED),
    "a length that is none": post("Content-Length: +5"),
    "a coding that is not the last": post("Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n" + SMUGGLED),
    "a chunk without a size": post("Transfer-Encoding: chunked", body=b"zz\r\n{}\r\n0\r\n\r\n"),
    "a header over two lines": post("X-A: b\r\n c: d", "Content-Length : 5"),
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_a_request_that_could_be_two_is_none(world: Any, raw: bytes):
    status, body, rest = await sent(world, raw)
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    assert rest == b"", "the connection ends, and with it what was smuggled"
    assert world.engine.asked == []
    assert await world.said() == "desk-1: hello"


@pytest.mark.parametrize("stream", [False, True])
async def test_ten_megabytes_are_refused_before_they_are_read(world: Any, stream: bool):
    async with await world.chat("x" * (10 << 20), stream=stream) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["param"]) == (413, "body_too_large", "(body)")
    assert world.engine.asked == []


async def test_a_million_tokens_are_refused(world: Any):
    async with await world.chat(max_tokens=1_000_000) as response:
        error = (await response.json())["error"]
        assert (response.status, error["param"]) == (400, "max_tokens")
    assert world.engine.asked == []
    assert world.gateway.metrics.value("completions.refused") == 1
    assert world.gateway.metrics.value("completions.failed") == 0


async def test_a_prompt_that_does_not_fit_is_the_clients_fault(world: Any):
    told = "The decoder prompt (length 5000) is longer than the maximum model length of 4096."
    world.engine.fail_with = (400, {"error": {"message": told, "type": "BadRequestError", "code": 400}}, {})
    async with await world.chat() as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (400, "context_length_exceeded")
    world.engine.fail_with = None
    await world.said()
    assert [event.fault for event in await world.completions(2)] == ["client", None]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_closes_in_the_middle_of_a_chunk_broke_off(make_world: Any, stream: bool):
    """The engine's body says it has more to come, and ends."""
    begun = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        chunk = f"{len(begun):x}\r\n".encode() + begun + b"\r\n" if stream else b""
        writer.write(head + chunk + b'ff\r\ndata: {"cho')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        world = await make_world(engine_url=f"http://127.0.0.1:{port}")
        world.declare()
        await world.serving(production="org/Tiny-Base")
        async with await world.chat(stream=stream) as response:
            told = await response.text()
            assert response.status == (200 if stream else 502)
        assert "broke off" in told
        assert "engine_error" in told
        (event,) = await world.completions()
        assert (event.finish_reason, event.output) == ("error", "a" if stream else "")


async def test_an_engine_that_stalls_in_mid_stream_is_not_waited_for_without_end(make_world: Any):
    world = await make_world(engine_timeout_seconds=0.2)
    world.declare()
    await world.serving(production="org/Tiny-Base")
    world.engine.gate.clear()
    async with await world.chat(stream=True) as response:
        told = (await response.text()).strip().split("\n\n")
    assert json.loads(told[-1].removeprefix("data: "))["error"]["code"] == "engine_timeout"
    (event,) = await world.completions()
    assert (event.output, event.finish_reason) == ("org/Tiny-Base:", "error")


NO_EVENTS: dict[str, list[bytes]] = {
    "no JSON": [b"{not json"],
    "no object": [b"[1]"],
    "invalid UTF-8": [b'{"choices": [{"delta": {"content": "\xff"}}]}'],
    "a half surrogate": [b'{"choices": [{"delta": {"content": "\\ud800"}}]}'],
    "choices that are none": [b'{"choices": [{"delta": {"content": "a"}}, 3]}'],
    "calls that are none": [b'{"choices": [{"delta": {"tool_calls": [3]}}]}'],
    "a call's function that is none": [b'{"choices": [{"delta": {"tool_calls": [{"function": 3}]}}]}'],
    "arguments that are no text": [
        b'{"choices": [{"delta": {"tool_calls": [{"function": {"arguments": {}}}]}}]}'
    ],
}


@pytest.mark.parametrize("events", NO_EVENTS.values(), ids=NO_EVENTS)
@pytest.mark.parametrize("begun", [False, True])
async def test_an_engine_whose_events_are_none_failed(world: Any, events: list[bytes], begun: bool):
    first = [b'{"choices": [{"delta": {"content": "a"}}]}'] if begun else []
    world.engine.stream_instead = [*first, *events]
    async with await world.chat(stream=True) as response:
        told = await response.text()
        assert response.status == (200 if begun else 502)
    error = json.loads(told.strip().split("\n\n")[-1].removeprefix("data: "))["error"]
    assert (error["code"], error["type"]) == ("engine_error", "server_error")
    (event,) = await world.completions()
    assert event.finish_reason == "error"
    assert world.gateway.metrics.value("completions.failed") == 1

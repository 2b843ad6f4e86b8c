"""Hostile requests over kept connections, at a gateway that holds keys and limits: does it fail or grow?

Every request is drawn from a fixed seed (``--seed``): valid bodies with bytes changed, invalid UTF-8, weird
and deeply nested parameters, unknown models and paths, wrong keys, a key whose limit is used up, requests
that could be two (smuggling), bodies that end early, streams that nobody reads to their end, rarely a head
that comes byte by byte or a prompt of 10 MB. Among them are valid requests, which must be answered.

Then ``--idle`` sockets are opened that ask nothing, half of them after half a head. Then a crowd comes:
``--crowd`` clients send 1 MB each to an engine that is silent, and twenty ask for the most log-probabilities
at once, until each has them.

What must hold: no status of 500 or more (the engine stub never fails, so each would be the gateway's own), an
answer to whatever is framed as HTTP, no second answer to a smuggled request, and a resident set that grows by
at most 150 MiB once ``--warm`` requests are over; a resident set of at most 512 MiB at any time, the same
process to the end, and answers for another key while the crowd waits. The report is written first; then a
breach ends the process with status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import psutil
from gateway import KEY, STUB, Contender, declare, process, processor_seconds, resident_bytes, until_answered
from report import write_report
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics
from tunewheel_runtime.store import ObjectStore
from tunewheel_serve_gateway.chat_body import ChatBody
from tunewheel_testing.command_keys import CommandKeys

GROWTH_BYTES = 150 << 20
"""Most that the resident set may grow by."""
MOST_BYTES = 512 << 20
"""Most that the resident set may be, at any time."""
PATIENCE_SECONDS = 60.0
PATH = "/v1/chat/completions"
NARROW_KEY = "k-narrow"
"""Has sixty requests a minute: nearly all of its requests are one too many."""
OTHER_KEY = "k-other"
SMUGGLED = b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
PARAMETERS = sorted(ChatBody.__annotations__)
HUGE = json.dumps({"model": "bench", "messages": [{"role": "user", "content": "x" * (10 << 20)}]}).encode()


def _nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


WEIRD: tuple[Any, ...] = (
    True, -1, 0, 1, 17, 2**63, 10**40, 1e308, -1e308, float("nan"), float("inf"), "", "x" * 5_000, "\x00",
    "\U0001f600", "../../etc/passwd", "{{7*7}}", [], {}, [[]] * 50, {"": {"": {}}}, [None],
    {"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#"}}},
    {"type": "json_schema", "json_schema": {"name": "a", "schema": _nested(400)}}, _nested(200), _nested(700),
    [{"type": "function", "function": {"name": "f"}}], ["a"] * 1_000, {"1": 100, "x": -100},
    [{"type": "function", "function": {"name": "f", "parameters": _nested(400)}}],
)  # fmt: skip


class Attempt(NamedTuple):
    """What a hostile client sends, and what the connection is good for afterwards."""

    raw: bytes
    framed: bool = True
    """It is HTTP, whatever it says: there must be an answer."""
    once: bool = False
    """The connection is of no use afterwards: whatever comes after the first answer answers smuggling."""
    cut: bool = False
    """The client leaves after the answer's head."""
    half: bool = False
    """The client says that it sends no more, though it announced more."""
    slow: bool = False
    """The head comes byte by byte."""


def post(body: bytes, *headers: str, key: str | None = KEY, path: str = PATH, length: bool = True) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    lines += [f"Authorization: Bearer {key}"] if key is not None else []
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def body_of(draw: random.Random, **more: Any) -> dict[str, Any]:
    text = " ".join(draw.choice(("battery", "charger", "is", "dead", "since", "Monday")) for _ in range(12))
    return {"model": "bench", "messages": [{"role": "user", "content": text}], **more}


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def valid(draw: random.Random) -> Attempt:
    return Attempt(post(encoded(body_of(draw, stream=draw.random() < 0.3))))


def changed_bytes(draw: random.Random) -> Attempt:
    body = bytearray(encoded(body_of(draw, temperature=0.5)))
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(body) or 1)
        match draw.randrange(4):
            case 0 if body:
                body[at] = draw.randrange(256)
            case 1:
                del body[at : at + draw.randint(1, 20)]
            case 2:
                body[at:at] = body[at : at + 30] * draw.randint(1, 5)
            case _:
                body[at:at] = draw.randbytes(draw.randint(1, 20))
    return Attempt(post(bytes(body)))


def invalid_utf8(draw: random.Random) -> Attempt:
    broken = draw.choice((b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80"))
    return Attempt(post(encoded(body_of(draw)).replace(b"is", broken, 1).replace(b"user", b"us" + broken)))


def weird_parameters(draw: random.Random) -> Attempt:
    body = body_of(draw)
    for _ in range(draw.randint(1, 3)):
        body[draw.choice((*PARAMETERS, "no_such_parameter"))] = draw.choice(WEIRD)
    return Attempt(post(encoded(body)))


def weird_messages(draw: random.Random) -> Attempt:
    message: Any = {"role": "user", "content": "hello"}
    message[draw.choice(("role", "content", "tool_calls", "tool_call_id", "name"))] = draw.choice(WEIRD)
    messages = draw.choice(([message], [message] * 30, [], message, [draw.choice(WEIRD)]))
    return Attempt(post(encoded(body_of(draw, messages=messages))))


def unknown_model(draw: random.Random) -> Attempt:
    known = ("bench@1", "elsewhere", "", "x" * 3_000, "any/model", "../bench", "b\u00e9nch", "\x00", "BENCH")
    return Attempt(post(encoded(body_of(draw, model=draw.choice(known)))))


def unknown_path(draw: random.Random) -> Attempt:
    path = draw.choice(
        ("/v1/models/%00", "/v1/models/..%2f..%2fetc", "/v1/completions", "/", "/v1/" + "a" * 4_000)
    )
    if draw.random() < 0.5:
        return Attempt(post(encoded(body_of(draw)), path=path))
    method = draw.choice(("GET", "PUT", "DELETE", "PATCH", "BREW"))
    head = f"{method} {draw.choice((path, PATH))} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    return Attempt(head.encode())


def feedback(draw: random.Random) -> Attempt:
    told = {name: draw.choice(WEIRD) for name in ("completion_id", "rating", "correction", "model")}
    return Attempt(post(encoded(told), path="/v1/feedback"))


def wrong_key(draw: random.Random) -> Attempt:
    key = draw.choice((None, "", "wrong", "k" * 5_000, f"{KEY} {KEY}", "\udcff\udcfe", "Bearer"))
    return Attempt(post(encoded(body_of(draw)), key=key))


def used_up_limit(draw: random.Random) -> Attempt:
    return Attempt(post(encoded(body_of(draw)), key=NARROW_KEY))


def smuggling(draw: random.Random) -> Attempt:
    body = encoded(body_of(draw))
    lengths = f"Content-Length: {len(body)}"
    chunks, end = "Transfer-Encoding: chunked", b"0\r\n\r\n" + SMUGGLED
    raw = draw.choice(
        (
            post(end, lengths, chunks, length=False),
            post(end, chunks, lengths, length=False),
            post(body + SMUGGLED, "Content-Length: 5", lengths, length=False),
            post(body, f"Content-Length: +{len(body)}", length=False),
            post(body, "Content-Length: -1", length=False),
            post(end, "Transfer-Encoding: chunked, gzip", length=False),
            post(b"zz\r\n{}\r\n" + end, chunks, length=False),
            post(b"fffffffffffffffff\r\n{}\r\n" + end, chunks, length=False),
            post(body, "X-A: b\r\n c: d", "Content-Length : 5", length=False),
            post(body, "X-Null: a\x00b"),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + draw.randbytes(50) + b"\r\n\r\n",
        )
    )
    return Attempt(raw, framed=False, once=True)


def long_head(draw: random.Random) -> Attempt:
    many = [f"X-{number}: {'v' * 50}" for number in range(draw.choice((200, 5_000)))]
    return Attempt(post(encoded(body_of(draw)), *many), framed=False, once=True)


def ends_early(draw: random.Random) -> Attempt:
    raw = post(encoded(body_of(draw)))
    return Attempt(raw[: draw.randrange(1, len(raw))], framed=False, once=True, half=True)


def left_stream(draw: random.Random) -> Attempt:
    return Attempt(post(encoded(body_of(draw, stream=True))), once=True, cut=True)


def slow_head(draw: random.Random) -> Attempt:
    return Attempt(post(encoded(body_of(draw))), slow=True)


def huge_prompt(_: random.Random) -> Attempt:
    return Attempt(post(HUGE), framed=False, once=True)


KINDS: dict[Callable[[random.Random], Attempt], int] = {
    valid: 1_000, changed_bytes: 2_000, invalid_utf8: 800, weird_parameters: 2_000, weird_messages: 1_000,
    unknown_model: 600, unknown_path: 400, feedback: 400, wrong_key: 800, used_up_limit: 300, smuggling: 300,
    long_head: 50, ends_early: 250, left_stream: 95, slow_head: 3, huge_prompt: 2,
}  # fmt: skip
"""By kind, how many of ten thousand requests are such."""


@dataclass
class Tally:
    statuses: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    second_answers: int = 0
    """To what was smuggled."""
    failures: list[str] = field(default_factory=list[str])
    """The first answers of 500 and more, and the first requests without an answer."""

    def count(self, kind: str, status: int | None, said: bytes, raw: bytes, *, must: bool) -> None:
        self.statuses.setdefault(kind, Counter())[str(status or "no answer")] += 1
        wrong = (status or 0) >= 500 or (status is None and must)
        if wrong and len(self.failures) < 20:
            self.failures.append(f"{kind} {status}: {said[:300]!r} to {raw[-300:]!r}")

    def total(self, holds: Callable[[str], bool]) -> int:
        return sum(n for found in self.statuses.values() for status, n in found.items() if holds(status))


class Client:
    """One connection after another; each is kept for as long as the gateway keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._old = False

    async def send(self, attempt: Attempt, tally: Tally) -> tuple[int | None, bytes]:
        """Return status and body of the answer; None where there was none."""
        while True:
            kept = self._open is not None
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    return await self._exchange(attempt, tally)
            except TimeoutError:
                self._leave()
                return None, b"nothing in time"
            except (OSError, EOFError, asyncio.LimitOverrunError):
                self._leave()
                if not kept:  # a kept connection may be closed under a request: then it is sent again
                    return None, b""

    def _leave(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    async def _exchange(self, attempt: Attempt, tally: Tally) -> tuple[int, bytes]:
        if self._open is None:
            self._open = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._open
        if attempt.slow:
            for at in range(20):
                writer.write(attempt.raw[at : at + 1])
                await asyncio.sleep(0.1)
        writer.write(attempt.raw[20 if attempt.slow else 0 :])
        if attempt.half:
            writer.write_eof()
        head = await reader.readuntil(b"\r\n\r\n")
        status, told = int(head.split(b" ", 2)[1]), head.lower()
        if attempt.cut:
            self._leave()
            return status, b""
        body = await _body(reader, told)
        if attempt.once:
            if b"connection: close" in told and await reader.read():
                tally.second_answers += 1
            self._leave()
        elif b"connection: close" in told:
            self._leave()
        return status, body


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    if b"transfer-encoding: chunked" not in head:
        found = head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        return await reader.readexactly(int(found or 0))
    parts: list[bytes] = []
    while size := int((await reader.readline()).strip() or b"0", 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readline()
    return b"".join(parts)


async def attack(port: int, draws: Iterator[random.Random], tally: Tally, *, clients: int) -> None:
    """Send one request for each of ``draws``; which clients send them makes no difference to what is sent."""
    kinds, weights = list(KINDS), list(KINDS.values())

    async def client() -> None:
        connection = Client(port)
        for draw in draws:
            (make,) = draw.choices(kinds, weights)
            attempt = make(draw)
            status, said = await connection.send(attempt, tally)
            tally.count(make.__name__, status, said, attempt.raw, must=attempt.framed)

    await asyncio.gather(*(client() for _ in range(clients)))


async def ask(port: int, raw: bytes) -> int:
    """Send ``raw`` on a connection of its own; return the status of the answer. ``raw`` is not copied."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", port))
        await loop.sock_sendall(connection, raw)
        head = await loop.sock_recv(connection, 1 << 16)
        if b"chunked" not in head:
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            length -= len(head.partition(b"\r\n\r\n")[2])
            while length > 0:
                length -= len(await loop.sock_recv(connection, 1 << 20))
        return int(head.split(b" ", 2)[1])


async def probe(port: int, waits: list[float], statuses: Counter[str]) -> None:
    """Ask short questions with another key, one after another."""
    raw = post(encoded(body_of(random.Random(0))), key=OTHER_KEY)
    while True:
        began = time.perf_counter()
        statuses[str(await ask(port, raw))] += 1
        waits.append(time.perf_counter() - began)
        await asyncio.sleep(0.05)


async def crowd(port: int, gateway: psutil.Process, *, clients: int) -> dict[str, Any]:
    """Send bodies of 1 MB to a silent engine, then requests of most log-probabilities. Return the figures."""
    waits: list[float] = []
    others, silent, large = Counter[str](), Counter[str](), Counter[str]()
    prober = asyncio.create_task(probe(port, waits, others))
    text = [{"role": "user", "content": "silent " + "x" * 1_000_000}]
    raw = post(encoded({"model": "bench", "messages": text}))
    asking = {asyncio.create_task(ask(port, raw)) for _ in range(clients)}
    while asking:
        done, asking = await asyncio.wait(asking, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        silent.update(str(task.exception() or task.result()) for task in done)
        if not done:  # The rest is what the engine is silent to.
            break
    held, held_bytes = len(asking), gateway.memory_info().rss
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    most = encoded(body_of(random.Random(0), logprobs=True, top_logprobs=20, max_tokens=4096))

    async def until_given() -> None:
        while (status := await ask(port, post(most))) != 200:
            large[str(status)] += 1
            await asyncio.sleep(2)
        large["200"] += 1

    await asyncio.gather(*(until_given() for _ in range(20)))
    prober.cancel()
    await asyncio.gather(prober, return_exceptions=True)
    peak = next(
        line for line in Path(f"/proc/{gateway.pid}/status").read_text().splitlines() if "VmHWM" in line
    )
    return {
        "clients": clients,
        "statuses": {**silent, "in flight": held},
        "rss_bytes_held": held_bytes,
        "log_probabilities": dict(large),
        "another_key": {**others, "p50_seconds": sorted(waits)[len(waits) // 2], "longest": max(waits)},
        "rss_bytes_peak": int(peak.split()[1]) << 10,
        "is_running": gateway.is_running(),
    }


async def idlers(port: int, gateway: psutil.Process, *, sockets: int) -> dict[str, Any]:
    """Open sockets that ask nothing, every second one after half a head, and ask with a key meanwhile."""
    waits: list[float] = []
    others = Counter[str]()
    before, opened = gateway.memory_info().rss, list[asyncio.StreamWriter]()
    for n in range(sockets):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" if n % 2 else b"")
            opened.append(writer)
    prober = asyncio.create_task(probe(port, waits, others))
    await asyncio.sleep(20)
    prober.cancel()
    await asyncio.gather(prober, return_exceptions=True)
    held, connected = gateway.memory_info().rss, len(gateway.net_connections())
    for writer in opened:
        writer.close()
    return {
        "sockets": len(opened),
        "connections_of_the_gateway": connected,
        "rss_bytes_grown": held - before,
        "another_key": {**others, "p50_seconds": sorted(waits)[len(waits) // 2], "longest": max(waits)},
        "is_running": gateway.is_running(),
    }


def draws_of(seed: int, numbers: range) -> Iterator[random.Random]:
    return (random.Random(f"{seed} {number}") for number in numbers)


def write_keys(folder: Path) -> Path:
    most = {"requests_per_minute": 10**9, "tokens_per_minute": 10**9, "tokens_per_day": 10**12}
    limits = {KEY: most, OTHER_KEY: most, NARROW_KEY: {"requests_per_minute": 60}}
    path = folder / "keys.json"
    keys = {
        key: {"sha256": hashlib.sha256(key.encode()).hexdigest(), "limits": most}
        for key, most in limits.items()
    }
    path.write_text(json.dumps({"keys": keys}))
    return path


def start(stack: ExitStack, root: Path) -> tuple[int, psutil.Process]:
    """Start broker, engine stub and gateway; return the gateway's port and process."""
    broker = LocalKafka(root / "kafka", port=None).start()
    stack.callback(broker.stop)
    store = root / "store"
    asyncio.run(ensure_topics({"bootstrap_servers": broker.bootstrap_servers}))
    asyncio.run(declare(broker.bootstrap_servers, ObjectStore(store.as_uri())))
    stub_port, port = free_port(), free_port()
    stack.enter_context(process([*STUB, str(stub_port)], root / "stub.log"))
    command = [sys.executable, "-m", "tunewheel_serve_gateway.main"]
    gateway = stack.enter_context(
        process(
            command,
            root / "gateway.log",
            TUNEWHEEL_BOOTSTRAP_SERVERS=broker.bootstrap_servers,
            TUNEWHEEL_STORE_URL=store.as_uri(),
            TUNEWHEEL_CACHE_DIR=str(root),
            TUNEWHEEL_ENGINE_URL=f"http://127.0.0.1:{stub_port}",
            TUNEWHEEL_HTTP_PORT=str(port),
            TUNEWHEEL_IDENTITY="required",
            TUNEWHEEL_API_KEYS_FILE=str(write_keys(root)),
            **CommandKeys(root).environment("serve-gateway"),
        )
    )
    return port, gateway


async def measure(port: int, gateway: psutil.Process, options: argparse.Namespace) -> dict[str, Any]:
    contender, tally = Contender(f"http://127.0.0.1:{port}{PATH}", "bench", gateway), Tally()
    headers = {"authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        await until_answered(session, contender)
        await attack(port, draws_of(options.seed, range(options.warm)), Tally(), clients=options.clients)
        warm, used, began = resident_bytes(contender), processor_seconds(contender), time.perf_counter()
        numbers = range(options.warm, options.warm + options.requests)
        await attack(port, draws_of(options.seed, numbers), tally, clients=options.clients)
        seconds, used = time.perf_counter() - began, processor_seconds(contender) - used
        await until_answered(session, contender)
    growth = resident_bytes(contender) - warm
    idle = await idlers(port, gateway, sockets=options.idle)
    crowded = await crowd(port, gateway, clients=options.crowd)
    wrong = tally.total(lambda status: status.startswith("5"))
    unanswered = sum(
        found["no answer"] for kind, found in tally.statuses.items() if kind not in _MAY_GO_UNANSWERED
    )
    bounded = crowded["rss_bytes_peak"] <= MOST_BYTES and crowded["is_running"]
    bounded = bounded and set(crowded["another_key"]) == {"200", "p50_seconds", "longest"}
    bounded = bounded and set(idle["another_key"]) == {"200", "p50_seconds", "longest"}
    return {
        "idle": idle,
        "crowd": crowded,
        "figures": {
            "requests": options.requests,
            "requests_per_second": round(options.requests / seconds, 1),
            "cpu_us": round(used / options.requests * 1e6, 1),
            "rss_bytes_warm": warm,
            "rss_bytes_grown": growth,
            "answers_of_500_and_more": wrong,
            "without_an_answer": unanswered,
            "second_answers": tally.second_answers,
        },
        "statuses": {kind: dict(found) for kind, found in sorted(tally.statuses.items())},
        "failures": tally.failures,
        "holds": bounded and not (wrong or unanswered or tally.second_answers) and growth <= GROWTH_BYTES,
    }


_MAY_GO_UNANSWERED = {make.__name__ for make in (smuggling, long_head, ends_early, huge_prompt)}


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--warm", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--crowd", type=int, default=2_000)
    parser.add_argument("--idle", type=int, default=10_000, help="sockets that ask nothing")
    return parser.parse_args(arguments)


def main() -> None:
    options = options_of()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        port, gateway = start(stack, Path(scratch))
        found = asyncio.run(measure(port, gateway, options))
    write_report(
        "hostile",
        packages=("aiohttp", "starlette", "uvicorn", "h11", "orjson", "pydantic"),
        contenders={"gateway": found.pop("figures")},
        ratios={},
        **found,
        seed=options.seed,
        clients=options.clients,
    )
    if not found["holds"]:
        sys.exit("hostile: see failures, without_an_answer, rss_bytes_grown and crowd in the report")


if __name__ == "__main__":
    main()

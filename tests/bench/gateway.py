"""What a gateway adds to a request: the same engine stub, asked directly and through gateways, in one run.

Stub, broker and gateways are processes of their own; this process is the client, a closed loop of 1, 32 or
128. Contenders take turns within each round; the median over the rounds and the least processor time of a
round count. All share this machine's processors, so requests per second say little in themselves. What counts
is the processor time of a gateway's processes for a request, beside that of the floor (``gateway_floor``):
raw ASGI and aiohttp that pass on every byte.

``plain`` answers are whole. A ``stream`` arrives as a burst, which no model produces; a ``paced`` one has
4 ms between its pieces.

``gateway`` asks who calls (a thousand keys), holds limits, and has every completion on the log;
``gateway+shadow`` copies each answered request to a second model too. ``--peers`` adds LiteLLM's proxy and
TensorZero, which are installed from PyPI. ``--requests`` per round; ``--soak`` plain requests more at the
end, for the memory after them; ``--redis`` counts limits in a Redis that runs. ``--retrieval PASSAGES`` adds
``gateway+retrieval``, which looks up each question among so many passages.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import gateway_peers
import psutil
from aiokafka import AIOKafkaProducer
from report import write_report
from tunewheel_contracts.event import Event, new_event
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.formats.serving import DesiredRoutes, Route, RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.command_keys import CommandKeys
from tunewheel_testing.engine import PACED
from tunewheel_testing.indexes import put_index

HERE = Path(__file__).resolve().parent
STUB = (sys.executable, "-m", "tunewheel_testing.engine")
KEY = "k-bench"
CONCURRENCY = (1, 32, 128)
SHAPES = ("plain", "stream", "paced")
BASE = BaseModelRef(name="any/model", revision="sha256:" + "0" * 64)
TEXT = "My charger blinks red since Monday and the locker at the station does not open any more. " * 2
"""Its 34 words are answered in 35 pieces, the model's name before them, and one more that ends the answer."""


class Contender(NamedTuple):
    url: str
    model: str
    process: psutil.Process | None
    """Of a gateway; None: nobody is between client and engine."""


def spec_of(project: str, **values: Any) -> ProjectSpec:
    return ProjectSpec.model_validate(
        {
            "project": project,
            "base_model": BASE.name,
            "task": {"system_prompt": "Answer."},
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
            **values,
        }
    )


async def index_of(spec: ProjectSpec, store: ObjectStore, passages: int) -> IndexVersioned:
    """Put an index of so many documents of one passage each: a hundred words, by Zipf's law."""
    assert spec.retrieval is not None
    draw = random.Random(0)
    words = [*TEXT.split(), *(f"word{n}" for n in range(20_000))]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    texts = {
        f"sops/{n}.md": " ".join(draw.choices(words, cum_weights=weights, k=100)) for n in range(passages)
    }
    return await put_index(store, spec.project, texts, spec.retrieval)


async def shadow_of(project: str, store: ObjectStore) -> ServingDesired:
    """Return a state in which the base answers, and an adapter is asked the same."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + b"\0" * 4
    files = (
        await store.put("adapters/second/adapter_config.json", b'{"peft_type": "LORA"}'),
        await store.put("adapters/second/adapter_model.safetensors", weights),
    )
    adapter = AdapterRef(
        model_id="second", path="adapters/second", files=files, base=BASE, method=TrainMethod.LORA
    )
    routes = (
        Route(model_id="base-0", role=RouteRole.PRODUCTION, percent=100, adapter=None),
        Route(model_id="second", role=RouteRole.SHADOW, percent=100, adapter=adapter),
    )
    return ServingDesired(
        project=project,
        generation=1,
        base=BASE,
        system_prompt="Answer.",
        desired=DesiredRoutes(routes=routes),
    )


async def declare(servers: str, store: ObjectStore, *, passages: int = 0) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    told: list[Event] = [ProjectDeclared(project=name, spec=spec_of(name)) for name in ("bench", "shadowed")]
    if passages:
        spec = spec_of("retrieving", retrieval={})
        told += [ProjectDeclared(project="retrieving", spec=spec), await index_of(spec, store, passages)]
    for data in (*told, await shadow_of("shadowed", store)):
        record = new_event(data, source="/bench").to_kafka()
        headers = list(record.headers.items())
        await producer.send_and_wait(record.topic, record.value, key=record.key, headers=headers)
    await producer.stop()


@contextmanager
def process(command: list[str], log: Path, **environment: str) -> Iterator[psutil.Process]:
    with log.open("wb") as stream:
        child = subprocess.Popen(command, env=os.environ | environment, stdout=stream, stderr=stream)
    try:
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait(60)


async def until_answered(session: aiohttp.ClientSession, contender: Contender) -> None:
    async with asyncio.timeout(180):
        while True:
            try:
                async with session.post(contender.url, json=body(contender.model, "plain")) as response:
                    if response.status == 200 and response.headers.get("x-tunewheel-index") != "none":
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


def body(model: str, shape: str) -> dict[str, Any]:
    text = f"{PACED} {TEXT}" if shape == "paced" else TEXT
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    return asked | ({} if shape == "plain" else {"stream": True, "stream_options": {"include_usage": True}})


class Took(NamedTuple):
    """Seconds until the first byte of an answer's body, and until its last."""

    first: float
    whole: float


async def ask_all(
    session: aiohttp.ClientSession, contender: Contender, *, shape: str, concurrency: int, requests: int
) -> list[Took]:
    left = iter(range(requests))
    taken: list[Took] = []
    sent = json.dumps(body(contender.model, shape)).encode()
    headers = {"content-type": "application/json"}

    async def client() -> None:
        for _ in left:
            started = time.perf_counter()
            async with session.post(contender.url, data=sent, headers=headers) as response:
                assert response.status == 200, await response.text()
                await response.content.readany()
                first = time.perf_counter() - started
                await response.read()
            taken.append(Took(first, time.perf_counter() - started))

    await asyncio.gather(*(client() for _ in range(concurrency)))
    return taken


def processor_seconds(contender: Contender) -> float:
    """Return what the contender's processes have used, those that have ended beneath it too."""
    if contender.process is None:
        return 0.0
    own = contender.process.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in contender.process.children(recursive=True):
        times = child.cpu_times()
        total += times.user + times.system
    return total


def resident_bytes(contender: Contender) -> int:
    assert contender.process is not None
    family = [contender.process, *contender.process.children(recursive=True)]
    return sum(one.memory_info().rss for one in family)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def compare(
    contenders: dict[str, Contender], options: argparse.Namespace
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return figures by contender and shape, and the memory of each contender."""
    figures: dict[str, dict[str, Any]] = {}
    memory: dict[str, dict[str, Any]] = {}
    headers = {"authorization": f"Bearer {KEY}"}
    # Servers close connections that idle for seconds, as others' turns take: no request may meet that.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        for one in contenders.values():
            await until_answered(session, one)
            await ask_all(session, one, shape="stream", concurrency=8, requests=100)
        for name, one in contenders.items():
            if one.process is not None:
                memory[name] = {"rss_bytes_warm": resident_bytes(one)}
        for shape in options.shapes:
            for concurrency in options.concurrency:
                rows: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
                for _ in range(options.rounds):
                    for name, one in contenders.items():
                        rows[name].append(await measure(session, one, shape, concurrency, options.requests))
                for name, found in rows.items():
                    figures[f"{name} {shape} x{concurrency}"] = {
                        key: round(statistics.median(row[key] for row in found), 4) for key in found[0]
                    } | {"cpu_us_best": round(min(row["cpu_us"] for row in found), 4)}
        for name, one in contenders.items():
            if one.process is not None:
                if options.soak:
                    await ask_all(session, one, shape="plain", concurrency=32, requests=options.soak)
                memory[name] |= {"rss_bytes": resident_bytes(one), "soaked": options.soak}
    return figures, memory


async def measure(
    session: aiohttp.ClientSession, one: Contender, shape: str, concurrency: int, requests: int
) -> dict[str, float]:
    await ask_all(session, one, shape=shape, concurrency=concurrency, requests=concurrency)  # connects
    before, started = processor_seconds(one), time.perf_counter()
    taken = await ask_all(session, one, shape=shape, concurrency=concurrency, requests=requests)
    wall = time.perf_counter() - started
    await asyncio.sleep(0.3)  # for what is done after the answer: the log, shadows, what limits settle
    used = processor_seconds(one) - before
    whole, first = [took.whole for took in taken], [took.first for took in taken]
    return {
        "p50_ms": statistics.median(whole) * 1000,
        "p99_ms": percentile(whole, 0.99) * 1000,
        "first_token_p50_ms": statistics.median(first) * 1000,
        "requests_per_second": requests / wall,
        "cpu_us": used / requests * 1e6,
    }


def write_keys(folder: Path) -> Path:
    """Write as many keys as a large company has applications, ``KEY`` among them, each with limits."""
    sums = [hashlib.sha256(key.encode()).hexdigest() for key in (KEY, *map(str, range(999)))]
    most = 10**9
    limits = {"requests_per_minute": most, "tokens_per_minute": most, "tokens_per_day": 10**12}
    path = folder / "keys.json"
    path.write_text(
        json.dumps({"keys": {f"app-{n}": {"sha256": s, "limits": limits} for n, s in enumerate(sums)}})
    )
    return path


def start(stack: ExitStack, root: Path, servers: str, options: argparse.Namespace) -> dict[str, Contender]:
    stub_port, floor_port, port = free_port(), free_port(), free_port()
    engine = f"http://127.0.0.1:{stub_port}"
    environment = {
        "TUNEWHEEL_BOOTSTRAP_SERVERS": servers,
        "TUNEWHEEL_STORE_URL": (root / "store").as_uri(),
        "TUNEWHEEL_CACHE_DIR": str(root),
        "TUNEWHEEL_ENGINE_URL": engine,
        "TUNEWHEEL_HTTP_PORT": str(port),
        "TUNEWHEEL_IDENTITY": "required",
        "TUNEWHEEL_API_KEYS_FILE": str(write_keys(root)),
        "TUNEWHEEL_SHADOW_BACKLOG": "100000",
        **CommandKeys(root).environment("serve-gateway"),
    }
    if options.redis:
        environment |= {"TUNEWHEEL_LIMITS_URL": options.redis, "TUNEWHEEL_LIMITS_TIMEOUT_SECONDS": "5"}
    stack.enter_context(process([*STUB, str(stub_port)], root / "stub.log"))
    command = [sys.executable, "-m", "tunewheel_serve_gateway.main"]
    gateway = stack.enter_context(process(command, root / "gateway.log", **environment))
    floor = [sys.executable, str(HERE / "gateway_floor.py"), str(floor_port), engine]
    path = "/v1/chat/completions"
    ours = f"http://127.0.0.1:{port}{path}"
    found = {
        "direct": Contender(engine + path, "any/model", None),
        "floor": Contender(
            f"http://127.0.0.1:{floor_port}{path}",
            "any/model",
            stack.enter_context(process(floor, root / "floor.log")),
        ),
        "gateway": Contender(ours, "bench", gateway),
        "gateway+shadow": Contender(ours, "shadowed", gateway),
    }
    if options.retrieval:
        found["gateway+retrieval"] = Contender(ours, "retrieving", gateway)
    for peer in options.peers:
        found[peer] = start_peer(stack, root, peer, engine)
    return found


def start_peer(stack: ExitStack, root: Path, peer: str, engine: str) -> Contender:
    log = root / f"{peer}.log"
    if peer == "litellm":
        port = free_port()
        command = gateway_peers.litellm_command(root, engine=engine, port=port, key=KEY)
        child = stack.enter_context(process(command, log, LITELLM_LOG="ERROR", LITELLM_MODE="PRODUCTION"))
        return Contender(f"http://127.0.0.1:{port}/v1/chat/completions", "bench", child)
    child = stack.enter_context(process(gateway_peers.tensorzero_command(root, engine=engine), log))
    deadline = time.monotonic() + 120
    while not (lines := [line for line in log.read_text().splitlines() if line.startswith("http")]):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    return Contender(f"{lines[0].rstrip('/')}/chat/completions", "tensorzero::model_name::bench", child)


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, choices=SHAPES)
    parser.add_argument("--concurrency", nargs="+", type=int, default=CONCURRENCY)
    parser.add_argument("--soak", type=int, default=0)
    parser.add_argument("--redis", default="")
    parser.add_argument("--retrieval", type=int, default=0, metavar="PASSAGES")
    parser.add_argument("--peers", nargs="*", default=[], choices=("litellm", "tensorzero"))
    return parser.parse_args(arguments)


def main() -> None:
    options = options_of()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        root = Path(scratch)
        broker = LocalKafka(root / "kafka", port=None).start()
        stack.callback(broker.stop)
        asyncio.run(ensure_topics({"bootstrap_servers": broker.bootstrap_servers}))
        store = ObjectStore((root / "store").as_uri())
        asyncio.run(declare(broker.bootstrap_servers, store, passages=options.retrieval))
        contenders = start(stack, root, broker.bootstrap_servers, options)
        figures, memory = asyncio.run(compare(contenders, options))
    shapes = [name.removeprefix("direct ") for name in figures if name.startswith("direct ")]
    gateways = [name for name in contenders if name not in ("direct", "floor")]
    write_report(
        "gateway",
        packages=("aiohttp", "starlette", "uvicorn", "uvloop", "aiokafka", "orjson"),
        contenders=figures,
        ratios={
            f"{name} over floor, processor time, {shape}, {of}": figures[f"{name} {shape}"][key]
            / max(1.0, figures[f"floor {shape}"][key])
            for name in gateways
            for shape in shapes
            for key, of in (("cpu_us", "median"), ("cpu_us_best", "best"))
        },
        added_ms={
            f"{name} {shape}": {
                key: round(figures[f"{name} {shape}"][key] - figures[f"direct {shape}"][key], 3)
                for key in ("p50_ms", "p99_ms", "first_token_p50_ms")
            }
            for name in ("floor", *gateways)
            for shape in shapes
        },
        passages=options.retrieval,
        retrieval_added_p50_ms={
            shape: round(
                figures[f"gateway+retrieval {shape}"]["p50_ms"] - figures[f"gateway {shape}"]["p50_ms"], 3
            )
            for shape in (shapes if options.retrieval else ())
        },
        memory=memory,
        peers=gateway_peers.versions(),
        requests_per_round=options.requests,
        rounds=options.rounds,
    )


if __name__ == "__main__":
    main()

"""A real engine-shaped server and a real gateway server, on ports of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from aiohttp import web
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.formats.serving import DesiredRoutes, Route, RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.http import PatientHttp
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.request_ids import RequestIds
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.telemetry import Telemetry, make_telemetry
from tunewheel_serve_gateway.api import make_api
from tunewheel_serve_gateway.gateway import Gateway
from tunewheel_serve_gateway.settings import Settings

from . import engine_answers

BASE = BaseModelRef(name="org/Tiny-Base", revision="sha256:" + "0" * 64)
WAIT_SECONDS = 60.0
HOLD_BACK, LET_GO = "hold the others back", "let the others go on"
"""Messages that close and open the gate: for tests whose client runs by itself."""


async def eventually(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """Return ``condition()`` once it is truthy."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true in {WAIT_SECONDS} s"
        await asyncio.sleep(0.005)
    return found


class FakeEngine:
    """Speaks the wire protocol of vLLM over a real socket; answers with what it was asked.

    What it says is in ``engine_answers``, sent word by word when streaming. ``fail_with`` holds
    (status, body, headers) to answer chats with, ``stream_instead`` the events to stream. ``gate`` holds
    answers back while it is clear, those of model ``gated`` only if that is set. Where ``api_key`` is set, it
    asks for that key as vLLM does.
    """

    def __init__(self) -> None:
        self.adapters: dict[str, str] = {}
        self.api_key: str | None = None
        self.asked: list[dict[str, Any]] = []
        self.traces: list[str] = []
        """``traceparent`` of each chat."""
        self.cookies: dict[str, str] = {}
        self.calls: list[str] = []
        self.loads: list[str] = []
        self.refuse_loads = False
        self.refuse_load_of: set[str] = set()
        self.silent: set[str] = set()
        """Paths that are asked in vain while they are named here."""
        self.told_of_base: dict[str, str] = {}
        """What ``/v1/models`` says of the base beside its name."""
        self.models_instead: dict[str, Any] | None = None
        self.load_instead: dict[str, Any] | None = None
        self.slow_load: str | None = None
        self.slots: int | None = None
        """Adapters that fit."""
        self.no_slot = "No free lora slots"
        self.base = BASE.name
        self.dies = False
        """Whether it closes the connection of every chat before the first byte."""
        self.poison = ""
        """How it ends the connection of a chat that says ``poison``: ``closed``, ``reset``, or what it sends
        before it closes the connection."""
        self.fail_with: tuple[int, dict[str, Any], dict[str, str]] | None = None
        self.stream_instead: list[bytes] | None = None
        self.break_off_after: int | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.gated: str | None = None
        self.gate_at = 1
        """The chunk of a stream that waits for the gate."""
        self.first: dict[str, list[tuple[int, dict[str, Any], dict[str, str]]]] = {}
        """By the last message: what to fail with at first, one after another."""
        self.cancelled = 0
        self.running = 0
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        app = web.Application(middlewares=[self._keep_silent])
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def restart(self) -> None:
        """Come back on the same port, without any adapter."""
        port = int(self.url.rsplit(":", 1)[1])
        await self.stop()
        self.adapters.clear()
        await self.start(port)

    @web.middleware
    async def _keep_silent(self, request: web.Request, handler: Any) -> Any:
        self.calls.append(request.path)
        while request.path in self.silent:
            await asyncio.sleep(0.01)
        sent = request.headers.get("authorization")
        if self.api_key is not None and sent != f"Bearer {self.api_key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        return await handler(request)

    async def _models(self, _: web.Request) -> web.Response:
        if self.models_instead is not None:
            return web.json_response(self.models_instead)
        base = {"id": self.base, "object": "model", "root": self.base, "parent": None} | self.told_of_base
        adapters = [
            {"id": name, "object": "model", "root": path, "parent": self.base}
            for name, path in self.adapters.items()
        ]
        return web.json_response({"object": "list", "data": [base, *adapters]})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.loads.append(body["lora_name"])
        while self.slow_load == body["lora_name"]:
            await asyncio.sleep(0.01)
        if self.load_instead is not None:
            return web.json_response(self.load_instead)
        if self.refuse_loads or body["lora_name"] in self.refuse_load_of:
            return _error(400, "the adapter was made for another base model")
        if body["lora_name"] in self.adapters:
            return _error(400, f"The lora adapter '{body['lora_name']}' has already been loaded.")
        if self.slots is not None and len(self.adapters) >= self.slots:
            return _error(400, self.no_slot)
        self.adapters[body["lora_name"]] = body["lora_path"]
        return web.Response(text="Success")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if self.adapters.pop(name, None) is None:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        return web.Response(text="Success")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.traces.append(request.headers.get("traceparent", ""))
        self.cookies |= request.cookies
        if self.dies:
            assert request.transport is not None
            request.transport.abort()
        if self.fail_with is not None:
            status, payload, headers = self.fail_with
            return web.json_response(payload, status=status, headers=headers)
        asked = engine_answers.asked_of(body)
        if self.poison and asked == "poison":
            _end(request, self.poison)
        if self.first.get(asked):
            status, payload, headers = self.first[asked].pop(0)
            return web.json_response(payload, status=status, headers=headers)
        if asked == LET_GO:
            self.gate.set()
        elif asked == HOLD_BACK:
            self.gate.clear()
            return web.json_response(engine_answers.completion(body))
        if body["model"] not in (self.base, *self.adapters):
            return _error(404, f"The model `{body['model']}` does not exist.")
        self.running += 1
        try:
            if body.get("stream"):
                return await self._stream(request, body)
            if self.gated in (None, body["model"]):
                await self.gate.wait()
            return web.json_response(engine_answers.completion(body))
        except (asyncio.CancelledError, ConnectionResetError):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        if self.stream_instead is not None:
            for event in self.stream_instead:
                await response.write(b"data: " + event + b"\n\n")
            return response
        for n, chunk in enumerate(engine_answers.chunks(body)):
            if n == self.break_off_after:
                assert request.transport is not None
                request.transport.abort()
                return response
            if n == self.gate_at:
                await self.gate.wait()
            await _send(response, chunk)
        if body.get("stream_options", {}).get("include_usage"):
            await _send(response, engine_answers.last_chunk(body))
        await response.write(b"data: [DONE]\n\n")
        return response


def _end(request: web.Request, how: str) -> None:
    """End the connection of ``request`` as an engine does that dies."""
    transport = request.transport
    assert transport is not None
    if how == "reset":
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif how != "closed":
        transport.write(how.encode())
        return transport.close()
    transport.abort()


async def _send(response: web.StreamResponse, chunk: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "BadRequestError", "param": None, "code": status}
    return web.json_response({"error": error}, status=status)


class Broker:
    """Takes events in memory; ``away`` refuses them as a broker that cannot be reached."""

    def __init__(self) -> None:
        self.events: list[Envelope[Any]] = []
        self.batches = 0
        self.away = False
        self.failures: list[BaseException] = []
        self.peers: list[Broker] = []
        """Where other gateways publish to the same log."""

    async def send(self, records: Any) -> None:
        """Take encoded completions."""
        found = [Envelope.from_kafka(InferenceCompleted, r.value, r.headers) for r in records]
        await self.publish_many(found)

    async def find(self, completion_id: str, since: datetime) -> Envelope[Any] | None:
        """Look for a completion on the log, which all gateways share."""
        if self.away:
            raise TransientError("cannot read: no broker")
        for event in (e for one in (self, *self.peers) for e in one.events):
            if event.data.type == "inference.completed" and event.data.completion_id == completion_id:
                assert event.time >= since
                return event
        return None

    async def publish_many(self, envelopes: Any) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise TransientError("cannot publish: no broker")
        self.batches += 1
        self.events.extend(envelopes)

    def of(self, event_type: str) -> list[Any]:
        return [e.data for e in self.events if e.data.type == event_type]


def wrap(data: Any) -> Envelope[Any]:
    return new_event(data, source="/test")


def safetensors(values: bytes = b"\0" * 4) -> bytes:
    """Return a safetensors file of one tensor."""
    header = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, len(values)]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


async def put_adapter(
    store: ObjectStore, model_id: str, *, weights: bytes | None = None, **changes: Any
) -> AdapterRef:
    """Put an adapter's files into the store."""
    path = f"adapters/{model_id}"
    config = json.dumps({"peft_type": "LORA", "model_id": model_id}).encode()
    is_whole = changes.get("method") == TrainMethod.FULL
    names = (
        ("config.json", "model.safetensors")
        if is_whole
        else ("adapter_config.json", "adapter_model.safetensors")
    )
    files = [
        await store.put(f"{path}/{name}", content)
        for name, content in zip(names, (config, weights or safetensors()), strict=True)
    ]
    values = {
        "model_id": model_id,
        "path": path,
        "files": tuple(files),
        "base": BASE,
        "method": TrainMethod.LORA,
    }
    return AdapterRef(**(values | changes))


def spec_of(project: str, *, prompt: str = "Answer as JSON.", **values: Any) -> ProjectSpec:
    """``values``: parts of the spec, as YAML has them; those of ``task`` beside its prompt."""
    return ProjectSpec.model_validate(
        {
            "project": project,
            "base_model": BASE.name,
            "criteria": [Criterion(metric="rouge_l", minimum=0.1)],
            **values,
            "task": {"system_prompt": prompt, **values.get("task", {})},
        }
    )


def pytest_asyncio_loop_factories() -> dict[str, Any]:
    """Run tests on the event loop that the gateway's process has too."""
    import uvloop

    return {"uvloop": uvloop.new_event_loop}


@dataclass
class World:
    """A gateway in front of fake engines, and what a test does to them. ``engine`` is the first of them."""

    gateway: Gateway
    telemetry: Telemetry
    engines: list[FakeEngine]
    broker: Broker
    store: ObjectStore
    url: str
    session: aiohttp.ClientSession
    generation: int = 0
    adapters: dict[str, AdapterRef] = field(default_factory=dict)
    log: list[Envelope[Any]] = field(default_factory=list)
    warnings: dict[str, str | None] = field(default_factory=dict)

    @property
    def engine(self) -> FakeEngine:
        return self.engines[0]

    def tell(self, event: Envelope[Any]) -> None:
        """Have the gateway read ``event`` from the log."""
        self.log.append(event)
        self.gateway.take(event)

    def declare(self, project: str = "desk", *, prompt: str = "Answer as JSON.", **values: Any) -> None:
        self.tell(wrap(ProjectDeclared(project=project, spec=spec_of(project, prompt=prompt, **values))))

    async def desire(
        self,
        project: str = "desk",
        *,
        stand_ins: tuple[str, ...] = (),
        judged: dict[str, Bundle] | None = None,
        **shares: tuple[str | AdapterRef, int],
    ) -> None:
        """Desire ``production=(model_id, percent)`` and so on; ``base`` stands for the bare base. ``judged``:
        bundles by model."""
        routes = [await self._route(role, model, percent) for role, (model, percent) in shares.items()]
        before = [await self._route("production", model, 100) for model in stand_ins]
        bundles = judged or {}
        routes, before = (
            [route.model_copy(update={"bundle": bundles.get(route.model_id)}) for route in some]
            for some in (routes, before)
        )
        self.generation += 1
        desired = ServingDesired(
            project=project,
            generation=self.generation,
            base=BASE,
            system_prompt="Answer as JSON.",
            desired=DesiredRoutes(routes=tuple(routes)),
            stand_ins=tuple(before),
        )
        self.tell(wrap(desired))

    async def _route(self, role: str, model: str | AdapterRef, percent: int) -> Route:
        adapter: AdapterRef | None = None
        if isinstance(model, AdapterRef):
            adapter, model = model, model.model_id
        elif not model.startswith("base"):
            adapter = self.adapters.get(model) or await put_adapter(self.store, model)
            self.adapters[model] = adapter
        return Route(model_id=model, role=RouteRole(role), percent=percent, adapter=adapter)

    async def serving(self, **roles: str | None) -> None:
        """Wait until these roles of project desk are served by these models."""

        def found() -> bool:
            table = self.gateway.table.projects.get("desk")
            if table is None:
                return False
            targets = {role: getattr(table, role) for role in roles}
            return {role: target and target.model_id for role, target in targets.items()} == roles

        await eventually(found, f"routes {roles}")

    async def chat(self, text: str = "hello", *, model: str = "desk", **body: Any) -> aiohttp.ClientResponse:
        messages = [{"role": "user", "content": text}]
        headers = body.pop("headers", {})
        payload = {"model": model, "messages": messages, **body}
        return await self.session.post(f"{self.url}/v1/chat/completions", json=payload, headers=headers)

    async def said(self, text: str = "hello", **body: Any) -> str:
        async with await self.chat(text, **body) as response:
            assert response.status == 200, await response.text()
            return (await response.json())["choices"][0]["message"]["content"]

    async def completions(self, count: int = 1) -> list[Any]:
        await eventually(lambda: len(self.broker.of("inference.completed")) >= count, f"{count} completions")
        return self.broker.of("inference.completed")


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI app over a real socket, as the runtime does."""
    # A connection that the test keeps must not be closed just when it asks again.
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_config=None,
        lifespan="off",
        timeout_keep_alive=600,
        http=PatientHttp,
    )
    listener = config.bind_socket()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started or task.done(), "the server")
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True
        await task
        listener.close()


MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def make_world(tmp_path: Path) -> AsyncIterator[MakeWorld]:
    """Return a maker of worlds; keyword arguments are settings. A world ``beside`` another has a gateway of
    its own on the other's engines, store and folder. ``log`` is read before the gateway starts. ``bases`` are
    the base models of its engines. ``start`` False: the gateway has not read the log yet."""
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:

        async def make(
            beside: World | None = None,
            log: Sequence[Envelope[Any]] = (),
            bases: Sequence[str] = (BASE.name,),
            start: bool = True,
            **settings: Any,
        ) -> World:
            broker = Broker()
            if beside is not None:
                engines, store = beside.engines, beside.store
            else:
                engines, store = [FakeEngine() for _ in bases], ObjectStore("memory://")
                for engine, base in zip(engines, bases, strict=True):
                    engine.base = base
                    await engine.start()
                    stack.push_async_callback(engine.stop)
            values = {
                "engine_url": ",".join(engine.url for engine in engines),
                "cache_dir": tmp_path,
                "reconcile_seconds": 0.2,
                "shutdown_seconds": 2.0,
            }
            gateway_settings = Settings.model_validate({"identity": "open"} | values | settings)
            telemetry = make_telemetry("serve-gateway", None)
            warnings: dict[str, str | None] = {}
            gateway = Gateway(
                gateway_settings,
                store,
                telemetry.meter,
                wrap,
                broker.publish_many,
                broker.send,
                broker.find,
                broker.failures.append,
                warnings.__setitem__,
            )
            app = make_api(gateway)
            guard(app.routes, Access(gateway_settings, warn=print))
            url = await stack.enter_async_context(served(RequestIds(app)))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            world = World(gateway, telemetry, engines, broker, store, url, session, warnings=warnings)
            for event in log:
                world.tell(event)
            stack.push_async_callback(gateway.close)
            if start:
                await gateway.start()
            return world

        yield make


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    """A world with project ``desk`` declared and ``desk-1`` in production."""
    made = await make_world()
    made.declare()
    await made.desire(production=("desk-1", 100))
    await made.serving(production="desk-1")
    return made


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TUNEWHEEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture(name="eventually")
def give_eventually() -> Any:
    return eventually


@pytest.fixture(name="put_adapter")
def give_put_adapter() -> Any:
    return put_adapter


@pytest.fixture(name="safetensors")
def give_safetensors() -> Any:
    return safetensors

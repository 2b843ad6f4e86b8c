"""A real engine-shaped server and a real gateway server, on ports of this machine."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.formats.serving import DesiredRoutes, Route, RouteRole
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.request_ids import RequestIds
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.telemetry import Telemetry, make_telemetry
from tunewheel_serve_gateway import gateway, loading
from tunewheel_serve_gateway.api import make_api
from tunewheel_serve_gateway.completions import log as completion_log
from tunewheel_serve_gateway.gateway import Gateway
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream import connection
from tunewheel_serve_gateway.upstream.balancing import beginning_of, pick
from tunewheel_testing.adapters import BASE, put_adapter
from tunewheel_testing.engine import FakeEngine
from tunewheel_testing.log import MemoryLog, wrap
from tunewheel_testing.served import serving
from tunewheel_testing.specs import spec_of
from tunewheel_testing.waiting import until


class Broker(MemoryLog):
    """The log of one gateway, who finds completions on those of ``peers`` too."""

    def __init__(self) -> None:
        super().__init__()
        self.peers: list[Broker] = []

    async def find(self, completion_id: str, since: datetime) -> Envelope[Any] | None:
        if self.away:
            raise TransientError("cannot read: no broker")
        for event in (e for one in (self, *self.peers) for e in one.events):
            if event.data.type == "inference.completed" and event.data.completion_id == completion_id:
                assert event.time >= since
                return event
        return None


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

        await until(found, f"routes {roles}")

    async def chat(self, text: str = "hello", *, model: str = "desk", **body: Any) -> aiohttp.ClientResponse:
        messages = [{"role": "user", "content": text}]
        headers = body.pop("headers", {})
        payload = {"model": model, "messages": messages, **body}
        return await self.session.post(f"{self.url}/v1/chat/completions", json=payload, headers=headers)

    def texts(self, place: int, count: int = 1) -> list[str]:
        """Return messages to ``desk-1``, without a bundle, that go to this engine where none is busy."""
        engines, found = self.gateway.pool.endpoints, list[str]()
        for n in itertools.count():
            prompt = [("system", "Answer as JSON."), ("user", f"hello {n}")]
            asked = [{"role": role, "content": content} for role, content in prompt]
            if pick(engines, beginning_of("desk-1", asked)) is engines[place]:
                found.append(f"hello {n}")
            if len(found) == count:
                break
        return found

    async def said(self, text: str = "hello", **body: Any) -> str:
        async with await self.chat(text, **body) as response:
            assert response.status == 200, await response.text()
            return (await response.json())["choices"][0]["message"]["content"]

    async def completions(self, count: int = 1) -> list[Any]:
        await until(lambda: len(self.broker.of("inference.completed")) >= count, f"{count} completions")
        return self.broker.of("inference.completed")


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
                engines, store = [FakeEngine(base) for base in bases], ObjectStore("memory://")
                for engine in engines:
                    await engine.start()
                    stack.push_async_callback(engine.stop)
            values = {
                "engine_url": ",".join(engine.url for engine in engines),
                "cache_dir": tmp_path,
                "reconcile_seconds": 0.2,
                "shutdown_seconds": 2.0,
                "confidence_share": 0.0,  # a sampled request would differ from the others by luck
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
            url = await stack.enter_async_context(serving(RequestIds(app)))
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


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of a second or two keep answers quick. On a busy machine they would decide what a test sees."""
    for module, name in (
        (gateway, "FIRST_LOOK_SECONDS"),
        (loading, "FOUND_SECONDS"),
        (completion_log, "DISK_SECONDS"),
        (connection, "LAST_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 60.0)

"""The control API over a folded state, without a broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tunewheel_client import AsyncClient
from tunewheel_console.actions import Actions
from tunewheel_console.control.events import Feed
from tunewheel_console.control.log import Log
from tunewheel_console.control.neighbours import Neighbour
from tunewheel_console.control.routes import Sources, add_control, add_steering, make_api
from tunewheel_console.control.services import add_dead_letters
from tunewheel_console.letters import Letters
from tunewheel_console.settings import Settings
from tunewheel_contracts.api.services import GroupLag
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import caller_of, guard, set_caller
from tunewheel_runtime.identity.roles import Caller, Grant, Role
from tunewheel_runtime.partitions import Backlog
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.log import MemoryLog

Ask = Callable[..., Any]


@pytest.fixture(autouse=True)
def _simulations_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need longer than the seconds that a request waits."""
    monkeypatch.setattr("tunewheel_console.control.declarations.SIMULATION_SECONDS", 600.0)


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
def lags() -> list[GroupLag]:
    """What the broker tells of consumer groups."""
    return []


@pytest.fixture
def asked_of_registry() -> list[httpx.Request]:
    return []


@pytest.fixture
def registry(asked_of_registry: list[httpx.Request]) -> Neighbour:
    """A registry that tells what it was asked."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked_of_registry.append(request)
        return httpx.Response(200, text=f"{request.url.raw_path.decode()}")

    return neighbour("registry", answer)


def neighbour(service: str, answer: Callable[[httpx.Request], httpx.Response]) -> Neighbour:
    """Return a service of which ``answer`` answers every request."""
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url=f"http://{service}")
    return Neighbour(service, client, setting=f"TUNEWHEEL_{service.removeprefix('serve-').upper()}_URL")


@pytest.fixture
def gateway() -> Neighbour:
    """A gateway whose address nobody named."""
    return Neighbour("serve-gateway", None, setting="TUNEWHEEL_GATEWAY_URL")


@pytest.fixture
def api(
    state: Any,
    store: Any,
    feed: Feed,
    letters: Letters,
    lags: Any,
    registry: Neighbour,
    gateway: Neighbour,
    completions: Any,
) -> FastAPI:
    async def read_lags() -> list[GroupLag]:
        if lags and isinstance(lags[0], Exception):
            raise lags[0]
        return lags

    async def identify(request: Any) -> Caller:
        return caller_of(request)

    web = make_api(state)
    sources = Sources(store, feed, letters, read_lags, registry, gateway, completions)
    add_control(web, state, sources, identify)
    add_dead_letters(web, state, letters, Actions(MemoryLog()))  # type: ignore[arg-type]
    guard(web.routes, Access(HttpSettings(identity="open"), warn=print))
    return web


@pytest.fixture
def ask(api: FastAPI) -> Ask:
    """Send a GET as a viewer, or another ``asker``, of ``projects`` (None: of all) and return the answer."""

    async def ask(
        path: str,
        projects: set[str] | None = None,
        headers: Any = None,
        *,
        asker: Role = Role.VIEWER,
        **query: Any,
    ) -> httpx.Response:
        grants = (Grant(frozenset({asker}), None if projects is None else frozenset(projects)),)

        async def called(scope: Any, receive: Any, send: Any) -> None:
            set_caller(scope, Caller(Principal(name="ann"), grants))
            await api(scope, receive, send)

        transport = httpx.ASGITransport(called)
        async with httpx.AsyncClient(transport=transport, base_url="http://console/v1") as client:
            return await client.get(path, params=query, headers=headers)

    return ask


class Door:
    """The routes by which people steer, over a log in memory, as ``principal`` with ``roles``."""

    def __init__(self, state: Any, log: MemoryLog, store: ObjectStore, settings: Settings) -> None:
        self.state, self.log, self.store = state, log, store
        self.principal: Principal | None = Principal(name="ann")
        self.roles = frozenset({Role.OPERATOR, Role.PUBLISHER})
        self.letters = Letters()
        self.behind = 0
        """How many events ingest has not read."""
        self.documents = {"returns.md", "refunds.md"}
        self.web = make_api(state)
        actions = Actions(log, applied=state.apply)  # type: ignore[arg-type]
        add_steering(
            self.web, state, actions, store, Log(self._refresh, self._backlogs, self._documents), settings
        )

        add_dead_letters(self.web, state, self.letters, actions)

    def guarded(self) -> FastAPI:
        guard(self.web.routes, Access(HttpSettings(identity="open"), warn=print))
        return self.web

    async def _documents(self, project: str) -> set[str]:
        return self.documents

    async def _backlogs(self) -> list[Backlog]:
        return [Backlog({0: 5}, {0: 5 - self.behind})]

    async def _refresh(self) -> None:
        for event in self.log.events:
            self.state.apply(event)

    def http(self) -> httpx.AsyncClient:
        async def called(scope: Any, receive: Any, send: Any) -> None:
            set_caller(scope, Caller(self.principal, (Grant(self.roles),)))
            await self.web(scope, receive, send)

        return httpx.AsyncClient(transport=httpx.ASGITransport(called), base_url="http://console/v1")

    async def send(self, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
        async with self.http() as client:
            return await client.request(method, path, json=json, **options)

    def client(self) -> AsyncClient:
        """Return Tunewheel's own client."""
        return AsyncClient("http://console", "k", http=self.http())


@pytest.fixture
def operator(door: Door) -> AsyncClient:
    return door.client()


@pytest.fixture
def door(state: Any, log: MemoryLog, store: ObjectStore) -> Door:
    made = Door(state, log, store, Settings())
    made.guarded()
    return made

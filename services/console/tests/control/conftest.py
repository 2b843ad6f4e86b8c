"""The control API over a folded state, without a broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tunewheel_console.control.routes import add_control, make_api
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard, set_caller
from tunewheel_runtime.identity.roles import Caller, Grant, Role
from tunewheel_runtime.settings import HttpSettings

Ask = Callable[..., Any]


@pytest.fixture
def api(state: Any, store: Any) -> FastAPI:
    web = make_api()
    add_control(web, state, store)
    guard(web.routes, Access(HttpSettings(identity="open"), warn=print))
    return web


@pytest.fixture
def ask(api: FastAPI) -> Ask:
    """Send a GET as a viewer of ``projects`` (None: of all) and return the answer."""

    async def ask(path: str, projects: set[str] | None = None, **query: Any) -> httpx.Response:
        grants = (Grant(frozenset({Role.VIEWER}), None if projects is None else frozenset(projects)),)

        async def called(scope: Any, receive: Any, send: Any) -> None:
            set_caller(scope, Caller(Principal(name="ann"), grants))
            await api(scope, receive, send)

        transport = httpx.ASGITransport(called)
        async with httpx.AsyncClient(transport=transport, base_url="http://console/v1") as client:
            return await client.get(path, params=query)

    return ask

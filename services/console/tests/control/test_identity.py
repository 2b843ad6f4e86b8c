"""Where to log in, and who the caller is."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from pydantic import ValidationError
from tunewheel_console.control.identity import add_identity
from tunewheel_console.settings import Settings
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard, set_caller
from tunewheel_runtime.identity.roles import Caller, Grant, Role
from tunewheel_runtime.settings import HttpSettings

ISSUER = "https://login.example.org"


def client(settings: Settings, caller: Caller | None = None, identity: str = "open") -> httpx.AsyncClient:
    web = FastAPI(openapi_url=None)
    add_identity(web, settings)
    guard(web.routes, Access(HttpSettings(identity=identity), warn=lambda *_: None))  # type: ignore[arg-type]

    async def called(scope, receive, send):
        if caller is not None:
            set_caller(scope, caller)
        await web(scope, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(called), base_url="http://console")


async def test_anybody_is_told_where_to_log_in_and_nothing_else():
    settings = Settings(oidc_issuer=ISSUER, oidc_client_id="tunewheel-cli", oidc_scope="openid groups")
    async with client(settings, identity="required") as http:
        told = (await http.get("/v1/login")).json()
        assert told["oidc"] == {"issuer": ISSUER, "client_id": "tunewheel-cli", "scope": "openid groups"}
        assert told["version"]
        assert (await http.get("/v1/me")).status_code == 401


@pytest.mark.parametrize("known", [{}, {"oidc_issuer": ISSUER}, {"oidc_client_id": "tunewheel-cli"}])
async def test_without_an_issuer_and_a_client_only_keys_log_in(known: dict[str, str]):
    async with client(Settings(**known)) as http:
        assert (await http.get("/v1/login")).json()["oidc"] is None


async def test_a_caller_is_told_their_grants_and_the_addresses_of_the_doors():
    settings = Settings(public_gateway_url="https://wheel.example/gateway/", public_ingest_url=None)
    grants = (
        Grant(frozenset({Role.OPERATOR, Role.APPLICATION}), frozenset({"shop", "desk"})),
        Grant(frozenset({Role.VIEWER})),
    )
    caller = Caller(Principal(name="ada", issuer=ISSUER), grants)
    async with client(settings, caller) as http:
        told = (await http.get("/v1/me")).json()
    assert (told["name"], told["issuer"]) == ("ada", ISSUER)
    assert told["grants"] == [
        {"roles": ["application", "operator"], "projects": ["desk", "shop"]},
        {"roles": ["viewer"], "projects": None},
    ]
    assert told["addresses"] == {"gateway": "https://wheel.example/gateway", "ingest": None, "console": None}


async def test_where_identity_is_open_the_caller_has_no_name_and_every_role():
    async with client(Settings()) as http:
        told = (await http.get("/v1/me")).json()
    assert (told["name"], told["grants"][0]["projects"]) == (None, None)
    assert {*told["grants"][0]["roles"]} == {role.value for role in Role}


@pytest.mark.parametrize("url", ["gateway:8080", "https://ada:secret@wheel.example", "ftp://wheel.example"])
def test_an_address_that_clients_cannot_call_stops_the_start(url: str):
    with pytest.raises(ValidationError, match="public_gateway_url"):
        Settings(public_gateway_url=url)

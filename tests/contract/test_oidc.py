"""Tokens of a real OIDC issuer beside API keys: which are taken, and for whom."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from tunewheel_runtime.identity.access import NoIdentity
from tunewheel_runtime.identity.guard import caller_of, guard, needs
from tunewheel_runtime.identity.roles import NotAuthenticated, Role
from tunewheel_runtime.identity.signing_keys import (
    PAUSE_SECONDS,
)
from tunewheel_runtime.identity.tokens import LEEWAY_SECONDS, MAX_CHARACTERS
from tunewheel_testing.oidc_issuer import ALGORITHMS, Issuer, SigningKey, encoded, make_key

from .oidc_world import World

HOUR = 3600
LEADS = ["support-leads", "everybody"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_tells_who_calls_and_its_groups_what_they_may(algorithm: str, key_file: Path) -> None:
    with Issuer(algorithm) as issuer:
        world = World(issuer, key_file)
        lead = await world.access.identify(f"bearer {issuer.token('ada', LEADS)}")
    assert lead.principal is not None
    assert (lead.principal.name, lead.principal.issuer) == ("ada", issuer.url)
    assert lead.principal.groups == ("support-leads",), (
        "groups that the file does not know stay out of events"
    )
    assert lead.may(Role.REVIEWER, "desk")
    assert not lead.may(Role.REVIEWER, "other")
    assert not lead.may(Role.OPERATOR), "which the key of the same name may"
    assert (await world.access.caller_of(lead.principal)).may(Role.REVIEWER, "desk"), "and so in an event"


async def test_keys_are_taken_beside_tokens(world: World, issuer: Issuer) -> None:
    assert await world.name("k-ada") == "ada"
    assert issuer.asked == [], "nobody asks the issuer about a key"
    for unknown in ("k-other", "a.b", "a.b.c.d.e"):
        with pytest.raises(NotAuthenticated, match="this API key is unknown"):
            await world.name(unknown)
    with pytest.raises(
        NotAuthenticated, match="no API key or token; send 'Authorization: Bearer <key or token>'"
    ):
        await world.access.identify(None)


async def test_a_token_where_no_issuer_is_set_is_told_from_a_key(issuer: Issuer, key_file: Path) -> None:
    world = World(issuer, key_file, oidc_issuer=None, oidc_audience=None)
    with pytest.raises(NotAuthenticated, match="tokens are not accepted here; send an API key"):
        await world.name(issuer.token("ada"))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["other", "tunewheel"]},
        {"groups": "support-leads everybody"},
        {"exp_in": 5 - LEEWAY_SECONDS},
        {"iat": None},
        {"header": {"typ": "at+jwt"}},
        {"header": {"typ": None}},
        {"header": {"kid": None}},
        {"header": {"x-own": "of the issuer"}},
    ],
    ids=str,
)
async def test_forms_that_issuers_use_are_taken(world: World, issuer: Issuer, claims: dict[str, Any]) -> None:
    if "exp_in" in claims:
        claims = {"exp": issuer.claims("ada")["iat"] + claims["exp_in"]}
    caller = await world.access.identify(f"Bearer {issuer.token('ada', **{'groups': LEADS, **claims})}")
    assert caller.may(Role.REVIEWER, "desk")


def shifted(issuer: Issuer, **by: int) -> dict[str, Any]:
    return {name: issuer.claims("ada")["iat"] + seconds for name, seconds in by.items()}


def nan(issuer: Issuer) -> str:
    return issuer.token("ada", exp=float("nan"))


def replaced(issuer: Issuer, part: int, text: str) -> str:
    parts = issuer.token("ada", LEADS).split(".")
    parts[part] = text
    return ".".join(parts)


def brought_along(issuer: Issuer, key: SigningKey) -> str:
    return issuer.token("ada", LEADS, key=key, header={"jwk": key.jwk(), "jku": "https://evil.example/keys"})


DEEP = encoded(b"[" * 3000)
REFUSED = {
    "ended": (lambda i: i.token("ada", **shifted(i, iat=-2 * HOUR, exp=-HOUR)), "has expired"),
    "not valid yet": (lambda i: i.token("ada", **shifted(i, nbf=HOUR)), "is not valid yet"),
    "from the future": (lambda i: i.token("ada", **shifted(i, iat=HOUR)), "from the future"),
    "another audience": (lambda i: i.token("ada", aud="payroll"), "is for another service"),
    "other audiences": (lambda i: i.token("ada", aud=["payroll", "tunewheel-x"]), "is for another service"),
    "no audience": (lambda i: i.token("ada", aud=None), "lacks aud"),
    "no end": (lambda i: i.token("ada", exp=None), "lacks exp"),
    "an end that is no number": (lambda i: i.token("ada", exp="soon"), "has a wrong exp"),
    "an end that no number reaches": (nan, "has a wrong exp"),
    "no subject": (lambda i: i.token("ada", sub=None), "lacks sub"),
    "an empty subject": (lambda i: i.token(""), "has a wrong sub"),
    "a subject of two lines": (lambda i: i.token("a\nb"), "claim sub of this token cannot be used"),
    "a long subject": (lambda i: i.token("a" * 300), "claim sub of this token cannot be used"),
    "groups of another form": (lambda i: i.token("ada", groups={"a": 1}), "claim groups of this token"),
    "another issuer": (lambda i: i.token("ada", iss="https://evil.example"), "from another issuer"),
    "no issuer": (lambda i: i.token("ada", iss=None), "from another issuer"),
    "a key of somebody else": (
        lambda i: i.token("ada", key=make_key("ES256", i.key.kid)), "signature of this token is wrong"
    ),
    "an unknown key": (lambda i: i.token("ada", header={"kid": "other"}), "does not have the key"),
    "a key of another type": (lambda i: i.token("ada", header={"alg": "RS256"}), "does not have the key"),
    "another curve": (lambda i: i.token("ada", header={"alg": "ES384"}), "signature of this token is wrong"),
    "a key that it brings along": (
        lambda i: brought_along(i, make_key("ES256", i.key.kid)), "signature of this token is wrong"
    ),
    "claims that were changed": (
        lambda i: replaced(i, 1, encoded(i.claims("eve", ["ml"]))), "signature of this token is wrong"
    ),
    "no signature": (lambda i: replaced(i, 2, ""), "signature of this token is wrong"),
    "none": (lambda i: i.forged("ada", algorithm="none"), "is not signed with one of"),
    "nOnE": (lambda i: i.forged("ada", algorithm="nOnE"), "is not signed with one of"),
    "the public key as a secret": (lambda i: i.forged("ada", algorithm="HS256"), "is not signed with one of"),
    "a number for an algorithm": (lambda i: i.token("ada", header={"alg": 5}), "is not signed with one of"),
    "a list for a key": (lambda i: i.token("ada", header={"kid": ["key-1"]}), "signature of this token"),
    "a logout": (lambda i: i.token("ada", header={"typ": "logout+jwt"}), "is not an access token"),
    "a logout without a type": (lambda i: i.token("ada", events={"logout": {}}), "reports an event"),
    "a token for its holder's key": (lambda i: i.token("ada", cnf={"jkt": "x"}), "is bound to a key"),
    "an extension": (lambda i: i.token("ada", header={"crit": ["x"], "x": 1}), "needs an extension"),
    "a plain body": (lambda i: i.token("ada", header={"b64": False}), "not a readable signed token"),
    "garbage": (lambda i: "a.b.c", "not a readable signed token"),
    "dots": (lambda i: "..", "not a readable signed token"),
    "no ASCII": (lambda i: replaced(i, 0, "é"), "not a readable signed token"),
    "a header that is a list": (lambda i: replaced(i, 0, encoded(b'["alg"]')), "not a readable signed token"),
    "a deep header": (lambda i: replaced(i, 0, DEEP), "not a readable signed token"),
    "deep claims": (lambda i: replaced(i, 1, DEEP), "claims of this token are not a JSON object"),
    "a long header": (lambda i: i.token("ada", header={"x": "x" * 5000}), "not a readable signed token"),
    "a huge token": (lambda i: i.token("ada", x="x" * MAX_CHARACTERS), "is longer than"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_token_that_does_not_hold_is_refused_and_not_repeated(
    world: World, issuer: Issuer, kind: str
) -> None:
    make, said = REFUSED[kind]
    token = make(issuer)
    message = await world.refusal(token)
    assert said in message
    assert not [part for part in token.split(".") if len(part) > 3 and part in message]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
HEADERS = st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "cty", "jwk", "x5c"]), JSON)
CLAIMS = st.dictionaries(
    st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "groups", "cnf", "events"]), JSON
)


@given(header=HEADERS, claims=CLAIMS, garbage=st.text(max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_sent_names_somebody_or_is_refused(
    world: World, issuer: Issuer, header: dict[str, Any], claims: dict[str, Any], garbage: str
) -> None:
    """Also what the issuer signs: it may be wrong in any way."""
    told = {"alg": "ES256", "kid": issuer.key.kid, **header}
    parts = [encoded(told), encoded(issuer.claims("ada", **claims))]
    content = ".".join(parts)
    signed = f"{content}.{encoded(issuer.key.sign(content.encode()))}"

    async def send() -> None:
        for token in (signed, f"{garbage}.{parts[1]}.", f"{parts[0]}.{garbage}.x", f"{content}.{garbage}"):
            with contextlib.suppress(NotAuthenticated):
                assert (await world.access.identify(f"Bearer {token}")).principal is not None

    asyncio.run(send())


async def test_other_claims_can_name_the_holder_and_the_groups(issuer: Issuer, key_file: Path) -> None:
    named = {"oidc_name_claim": "email", "oidc_groups_claim": "https://desk.example/roles"}
    world = World(issuer, key_file, **named)
    claims = {"email": "ada@desk.example", "https://desk.example/roles": ["ml"]}
    caller = await world.access.identify(f"Bearer {issuer.token('1', **claims)}")
    assert (caller.name, caller.may(Role.OPERATOR)) == ("ada@desk.example", True)
    unsure = await world.refusal(issuer.token("1", **claims, email_verified=False))
    assert "has not verified the email" in unsure
    assert "claim email" in await world.refusal(issuer.token("1"))


async def test_hundreds_of_groups_leave_those_that_count(world: World, issuer: Issuer) -> None:
    groups = [f"team-{n}" for n in range(400)]
    caller = await world.access.identify(f"Bearer {issuer.token('ada', [*groups, 'ml'])}")
    assert caller.principal is not None
    assert caller.principal.groups == ("ml",)


async def test_a_credential_ends_with_its_token(world: World, issuer: Issuer) -> None:
    claims = issuer.claims("ada", LEADS)
    credential = await world.access.credential(f"Bearer {issuer.token('ada', LEADS)}")
    assert credential.key_fingerprint is None
    assert credential.expires_at is not None
    assert abs(credential.expires_at - claims["exp"]) <= 60
    assert (await world.access.caller_with(credential)).may(Role.REVIEWER, "desk")
    endless = await world.access.credential(f"Bearer {issuer.token('ada', exp=10**400)}")
    assert endless.expires_at == 253_402_300_799


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"oidc_audience": None}, "TUNEWHEEL_OIDC_AUDIENCE is missing"),
        ({"oidc_audience": ""}, "TUNEWHEEL_OIDC_AUDIENCE is missing"),
        ({"oidc_issuer": "http://login.example"}, "TUNEWHEEL_OIDC_ISSUER must begin with https://"),
        ({"oidc_issuer": "login.example"}, "TUNEWHEEL_OIDC_ISSUER must be a URL"),
        ({"oidc_jwks_url": "http://login.example/keys"}, "TUNEWHEEL_OIDC_JWKS_URL must begin with"),
        ({"oidc_cafile": Path("nowhere.pem")}, "TUNEWHEEL_OIDC_CAFILE nowhere.pem"),
        ({"oidc_issuer": None}, "TUNEWHEEL_OIDC_AUDIENCE is set without TUNEWHEEL_OIDC_ISSUER"),
        ({"api_keys_file": None}, "its tokens' groups have no roles"),
        ({"identity": "open", "api_keys_file": None}, "its tokens' groups have no roles"),
    ],
    ids=str,
)
def test_settings_that_let_in_whoever_comes_or_nobody_are_refused(
    issuer: Issuer, key_file: Path, settings: dict[str, Any], said: str
) -> None:
    world = World(issuer, key_file, **settings)
    with pytest.raises(NoIdentity, match=said):
        world.access.require_identity("desk", host="127.0.0.1")


async def test_where_identity_is_open_a_token_still_tells_who_calls(issuer: Issuer, key_file: Path) -> None:
    world = World(issuer, key_file, identity="open")
    assert await world.name(issuer.token("bob")) == "bob"
    assert await world.name(issuer.forged("bob", algorithm="none")) is None
    issuer.stop()


def test_a_door_answers_as_oauth_has_it(world: World, issuer: Issuer) -> None:
    @needs(Role.REVIEWER)
    async def act(request: Request) -> Response:
        return JSONResponse({"caller": caller_of(request).name})

    routes = [Route("/{project}", act)]
    guard(routes, world.access)
    http = TestClient(Starlette(routes=routes))

    def ask(token: str, project: str = "desk") -> tuple[int, str | None, str]:
        answer = http.get(f"/{project}", headers={"authorization": f"Bearer {token}"})
        told = answer.json()
        return answer.status_code, answer.headers.get("www-authenticate"), told.get("error", told).get("code")

    assert ask(issuer.token("ada", LEADS))[0] == 200
    assert ask(issuer.token("ada", LEADS), "other") == (403, None, "role_missing")
    assert ask(issuer.token("ada", aud="x")) == (401, 'Bearer error="invalid_token"', "invalid_token")
    assert ask("k-other") == (401, "Bearer", "invalid_api_key")
    issuer.stop()
    issuer.rotate()
    world.clock.now += PAUSE_SECONDS
    assert ask(issuer.token("ada", LEADS)) == (503, None, "issuer_away")

"""Tokens of a real OIDC issuer beside API keys: which are taken, and for whom."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from tunewheel_runtime.identity.access import Access, NoIdentity
from tunewheel_runtime.identity.guard import caller_of, guard, needs
from tunewheel_runtime.identity.roles import InvalidToken, IssuerAway, NotAuthenticated, Role
from tunewheel_runtime.identity.signing_keys import (
    FETCH_SECONDS,
    HOLD_SECONDS,
    MAX_BYTES,
    PAUSE_SECONDS,
    REFRESH_SECONDS,
    STALE_SECONDS,
    WARNING,
)
from tunewheel_runtime.identity.tokens import LEEWAY_SECONDS, MAX_CHARACTERS
from tunewheel_runtime.settings import HttpSettings

from .oidc_issuer import ALGORITHMS, DISCOVERY, KEYS, Issuer, SigningKey, encoded, make_key

HOUR = 3600
LEADS = ["support-leads", "everybody"]


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer("ES256") as made:
        yield made


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    keys = {"ada": {"sha256": hashlib.sha256(b"k-ada").hexdigest(), "roles": ["operator"]}}
    groups = {"support-leads": {"roles": ["reviewer"], "projects": ["desk"]}, "ml": {"roles": ["operator"]}}
    path.write_text(yaml.safe_dump({"keys": keys, "groups": groups}))
    return path


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """One service's view of who calls, with a clock of its own for the age of keys."""

    def __init__(self, issuer: Issuer, key_file: Path | None, **settings: Any) -> None:
        told = {
            "identity": "required", "oidc_issuer": issuer.url, "oidc_audience": issuer.audience,
            "api_keys_file": key_file, **settings,
        }  # fmt: skip
        self.clock = Clock()
        self.warned: dict[str, str | None] = {}
        self.access = Access(
            HttpSettings.model_validate(told), warn=self.warned.__setitem__, clock=self.clock
        )

    async def name(self, token: str) -> str | None:
        return (await self.access.identify(f"Bearer {token}")).name

    async def refusal(self, token: str) -> str:
        with pytest.raises(NotAuthenticated) as refused:
            await self.name(token)
        assert type(refused.value) is InvalidToken, refused.value
        return str(refused.value)

    async def fetched(self) -> None:
        """Wait for the fetch that is under way."""
        fetching = self.access.begin()
        assert fetching is not None
        await fetching


@pytest.fixture
def world(issuer: Issuer, key_file: Path) -> World:
    return World(issuer, key_file)


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
    with pytest.raises(NotAuthenticated, match="tokens are not taken here; send an API key"):
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
    "ended": (lambda i: i.token("ada", **shifted(i, iat=-2 * HOUR, exp=-HOUR)), "has ended"),
    "not valid yet": (lambda i: i.token("ada", **shifted(i, nbf=HOUR)), "is not valid yet"),
    "from the future": (lambda i: i.token("ada", **shifted(i, iat=HOUR)), "from the future"),
    "another audience": (lambda i: i.token("ada", aud="payroll"), "is for somebody else"),
    "other audiences": (lambda i: i.token("ada", aud=["payroll", "tunewheel-x"]), "is for somebody else"),
    "no audience": (lambda i: i.token("ada", aud=None), "lacks aud"),
    "no end": (lambda i: i.token("ada", exp=None), "lacks exp"),
    "an end that is no number": (lambda i: i.token("ada", exp="soon"), "has a wrong exp"),
    "an end that no number reaches": (nan, "has a wrong exp"),
    "no subject": (lambda i: i.token("ada", sub=None), "lacks sub"),
    "an empty subject": (lambda i: i.token(""), "has a wrong sub"),
    "a subject of two lines": (lambda i: i.token("a\nb"), "claim sub of this token cannot be used"),
    "a long subject": (lambda i: i.token("a" * 300), "claim sub of this token cannot be used"),
    "groups of another form": (lambda i: i.token("ada", groups={"a": 1}), "claim groups of this token"),
    "another issuer": (lambda i: i.token("ada", iss="https://evil.example"), "of another issuer"),
    "no issuer": (lambda i: i.token("ada", iss=None), "of another issuer"),
    "a key of somebody else": (
        lambda i: i.token("ada", key=make_key("ES256", i.key.kid)), "signature of this token is wrong"
    ),
    "an unknown key": (lambda i: i.token("ada", header={"kid": "other"}), "has no such key"),
    "a key of another type": (lambda i: i.token("ada", header={"alg": "RS256"}), "has no such key"),
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
    "a logout": (lambda i: i.token("ada", header={"typ": "logout+jwt"}), "is no access token"),
    "a logout without a type": (lambda i: i.token("ada", events={"logout": {}}), "tells of an event"),
    "a token for its holder's key": (lambda i: i.token("ada", cnf={"jkt": "x"}), "is bound to a key"),
    "an extension": (lambda i: i.token("ada", header={"crit": ["x"], "x": 1}), "asks for an extension"),
    "a plain body": (lambda i: i.token("ada", header={"b64": False}), "is no signed token"),
    "garbage": (lambda i: "a.b.c", "is no signed token"),
    "dots": (lambda i: "..", "is no signed token"),
    "no ASCII": (lambda i: replaced(i, 0, "é"), "is no signed token"),
    "a header that is a list": (lambda i: replaced(i, 0, encoded(b'["alg"]')), "is no signed token"),
    "a deep header": (lambda i: replaced(i, 0, DEEP), "is no signed token"),
    "deep claims": (lambda i: replaced(i, 1, DEEP), "claims of this token are no JSON object"),
    "a long header": (lambda i: i.token("ada", header={"x": "x" * 5000}), "is no signed token"),
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


async def test_keys_rotate_while_the_service_runs(world: World, issuer: Issuer) -> None:
    old = issuer.token("ada")
    assert await world.name(old) == "ada"
    issuer.rotate("RS256", keep=1)
    world.clock.now += PAUSE_SECONDS
    assert await world.name(issuer.token("bob")) == "bob", "an unknown key is asked for"
    assert await world.name(old) == "ada"
    issuer.rotate("ES256")
    world.clock.now += REFRESH_SECONDS + 1
    assert await world.name(old) == "ada", "nobody waits while keys are fetched anew"
    await world.fetched()
    assert "has no such key" in await world.refusal(old), "it was withdrawn"
    assert await world.name(issuer.token("bob")) == "bob"


async def test_a_key_that_was_withdrawn_while_nobody_came_is_refused_to_the_first_who_comes(
    world: World, issuer: Issuer
) -> None:
    old = issuer.token("ada")
    assert await world.name(old) == "ada"
    issuer.rotate()
    world.clock.now += STALE_SECONDS + 1
    assert "has no such key" in await world.refusal(old)


async def test_nobody_waits_twice_for_an_issuer_that_is_away(world: World, issuer: Issuer) -> None:
    known = issuer.token("ada")
    assert await world.name(known) == "ada"
    issuer.stop()
    world.clock.now += STALE_SECONDS + 1
    assert await world.name(known) == "ada", "it was waited for"
    issuer.start()
    issuer.answering.clear()
    world.clock.now += PAUSE_SECONDS
    assert await world.name(known) == "ada"
    assert world.access.begin() is not None, "it is being asked"


async def test_tokens_of_unknown_keys_neither_hammer_the_issuer_nor_hold_up_others(
    world: World, issuer: Issuer
) -> None:
    good = issuer.token("ada")
    assert await world.name(good) == "ada"
    asked = len(issuer.asked)
    issuer.answering.clear()
    world.clock.now += PAUSE_SECONDS
    flood = [
        asyncio.create_task(world.refusal(issuer.token("eve", header={"kid": str(n)}))) for n in range(300)
    ]
    while len(issuer.asked) == asked:
        await asyncio.sleep(0.001)
    assert [await world.name(good) for _ in range(20)] == ["ada"] * 20
    assert not any(task.done() for task in flood), "the issuer has not answered yet"
    issuer.answering.set()
    assert {*await asyncio.gather(*flood)} == {
        "the issuer has no such key as this token names; get a new token"
    }
    for n in range(300):
        await world.refusal(issuer.token("eve", header={"kid": f"late-{n}"}))
    assert issuer.asked[asked:] == [DISCOVERY, KEYS]


async def test_an_issuer_that_is_away_at_the_start_is_told_and_asked_again(
    world: World, issuer: Issuer
) -> None:
    issuer.stop()
    world.access.begin()
    for _ in range(3):
        with pytest.raises(IssuerAway, match="try again in 10 seconds, or send an API key"):
            await world.name(issuer.token("ada"))
    assert issuer.url in (world.warned[WARNING] or "")
    assert await world.name("k-ada") == "ada", "keys are taken as ever"
    issuer.start()
    with pytest.raises(IssuerAway):
        await world.name(issuer.token("ada"))
    world.clock.now += PAUSE_SECONDS
    assert await world.name(issuer.token("ada")) == "ada"
    assert world.warned[WARNING] is None


async def test_known_keys_hold_for_a_day_without_the_issuer(world: World, issuer: Issuer) -> None:
    known = issuer.token("ada")
    assert await world.name(known) == "ada"
    issuer.stop()
    world.clock.now += HOLD_SECONDS - PAUSE_SECONDS
    assert await world.name(known) == "ada"
    assert "the keys fetched before hold for 24 hours" in (world.warned[WARNING] or "")
    assert await world.name(known) == "ada"
    with pytest.raises(IssuerAway):
        await world.name(issuer.token("ada", header={"kid": "new"}))
    world.clock.now += PAUSE_SECONDS + 1
    with pytest.raises(IssuerAway):
        await world.name(known)


async def test_an_issuer_that_never_answers_is_given_up(
    world: World, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewheel_runtime.identity.signing_keys.FETCH_SECONDS", 0.05)
    assert FETCH_SECONDS <= 10
    issuer.answering.clear()
    with pytest.raises(IssuerAway):
        await world.name(issuer.token("ada"))
    assert "does not answer within" in (world.warned[WARNING] or "")


def told(body: object, status: int = 200, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    return status, body if isinstance(body, bytes) else json.dumps(body).encode(), headers


FAULTS = {
    "a redirect": (DISCOVERY, told(b"", 302, Location="http://127.0.0.1/"), "redirects elsewhere"),
    "a redirect of the keys": (KEYS, told(b"", 307, Location="http://127.0.0.1/"), "redirects elsewhere"),
    "an error": (DISCOVERY, told(b"", 500), "answers with status 500"),
    "no JSON": (KEYS, told(b"<html>"), "does not answer with a JSON object that has keys"),
    "deep JSON": (KEYS, told(b"[" * 9000), "does not answer with a JSON object that has keys"),
    "compressed": (KEYS, told(b"\x1f\x8b0", **{"Content-Encoding": "gzip"}), "does not answer with"),
    "without end": (KEYS, told(b" " * (MAX_BYTES + 1)), f"more than {MAX_BYTES} bytes"),
    "another issuer": (DISCOVERY, told({"issuer": "https://x.example", "jwks_uri": "https://x.example"}),
                       "speaks for another issuer"),
    "no address of keys": (DISCOVERY, told({"issuer": "x"}), "that has issuer and jwks_uri"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_no_issuer_should_answer_is_told_by_address(
    world: World, issuer: Issuer, fault: str
) -> None:
    path, issuer.answers[path], said = FAULTS[fault]
    with pytest.raises(IssuerAway):
        await world.name(issuer.token("ada"))
    assert said in (world.warned[WARNING] or "")
    assert issuer.url in (world.warned[WARNING] or "")
    issuer.answers.clear()
    world.clock.now += PAUSE_SECONDS
    assert await world.name(issuer.token("ada")) == "ada"


@pytest.mark.parametrize(
    "address", ["http://keys.example/", "ftp://127.0.0.1/", "/keys", "http://[", "https://a@b/"]
)
async def test_keys_come_over_https_or_from_this_machine(world: World, issuer: Issuer, address: str) -> None:
    issuer.answers[DISCOVERY] = told({"issuer": issuer.url, "jwks_uri": address})
    with pytest.raises(IssuerAway):
        await world.name(issuer.token("ada"))
    assert "jwks_uri " in (world.warned[WARNING] or "")


@pytest.mark.filterwarnings("ignore:Key size should be")
async def test_keys_that_cannot_be_used_hide_no_other(world: World, issuer: Issuer) -> None:
    weak = make_key("RS256", "weak", bits=1024)
    secret = {"kty": "oct", "kid": "secret", "k": encoded(b"s" * 32)}
    junk: list[object] = [5, {}, {"kty": "AKP"}, {"kty": "RSA", "n": 1}, {"kty": "RSA", "key_ops": 5}, secret]
    encrypting = {**issuer.key.jwk(), "use": "enc", "kid": "enc"}
    issuer.answers[KEYS] = told({"keys": [*junk, weak.jwk(), encrypting, issuer.key.jwk()]})
    assert await world.name(issuer.token("ada")) == "ada"
    assert "no such key" in await world.refusal(issuer.token("ada", key=weak))
    assert "no such key" in await world.refusal(issuer.token("ada", header={"kid": "enc"}))


async def test_an_issuer_without_keys_lets_nobody_in(world: World, issuer: Issuer) -> None:
    issuer.answers[KEYS] = told({"keys": []})
    assert "no such key" in await world.refusal(issuer.token("ada"))
    assert "tells no key" in (world.warned[WARNING] or "")


async def test_without_a_name_the_only_key_of_its_type_is_meant(world: World, issuer: Issuer) -> None:
    nameless = issuer.token("ada", header={"kid": None})
    issuer.rotate("RS256", keep=1)
    assert await world.name(nameless) == "ada"
    issuer.rotate("ES256", keep=2)
    world.clock.now += REFRESH_SECONDS + 1
    await world.name(nameless)
    await world.fetched()
    assert "no such key" in await world.refusal(nameless)


async def test_the_address_of_the_keys_can_be_set(issuer: Issuer, key_file: Path) -> None:
    world = World(issuer, key_file, oidc_jwks_url=issuer.url + KEYS)
    assert await world.name(issuer.token("ada")) == "ada"
    assert issuer.asked == [KEYS]


def test_one_access_serves_any_number_of_event_loops(world: World, issuer: Issuer, key_file: Path) -> None:
    """Made before a loop runs, and used in several, one after another."""
    for turn in range(3):
        world.clock.now += REFRESH_SECONDS + 1
        key_file.write_text(key_file.read_text() + "\n")

        async def callers() -> list[str | None]:
            names = [world.name(secret) for secret in (issuer.token("ada"), "k-ada") * 5]
            return await asyncio.gather(*names)

        assert asyncio.run(callers()) == ["ada"] * 10, turn


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
        ({"api_keys_file": None}, "what the groups of its tokens may do"),
        ({"identity": "open", "api_keys_file": None}, "what the groups of its tokens may do"),
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

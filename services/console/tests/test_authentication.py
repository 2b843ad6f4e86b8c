"""Logging in and out, cookies and CSRF tokens, on the console's API without its page."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from pydantic import ValidationError
from starlette.requests import HTTPConnection
from tunewheel_client import AsyncClient
from tunewheel_console.authentication import FORM_BYTES, add_authentication
from tunewheel_console.control.identity import add_login_links
from tunewheel_console.control.routes import add_steering
from tunewheel_console.logins import (
    ADDRESSES,
    FAILURE_SECONDS,
    FAILURES,
    LINK_SECONDS,
    LINKS_EACH,
    Attempts,
    LoginLinks,
)
from tunewheel_console.sessions import Sessions, session_of
from tunewheel_console.settings import Settings
from tunewheel_contracts.events.training import TrainControl
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.access import LOOK_SECONDS, Access, Credential
from tunewheel_runtime.identity.guard import caller_of, guard, needs
from tunewheel_runtime.identity.roles import NotAuthenticated, Role
from tunewheel_runtime.refusals import answer_errors
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.clock import Clock

HTML = {"accept": "text/html,*/*"}
SESSION_SECONDS = 100.0


class Console:
    """The console's routes behind what lets people in, and a page that says who they are."""

    def __init__(self, folder: Path, state: Any, *, proxies: str = "", **settings: Any) -> None:
        self.file = folder / "keys.yaml"
        self.clock, self.sent = Clock(1_000_000.0), list[tuple[str, str, str]]()
        self.keys: dict[str, dict[str, Any]] = {
            "ann": {"key": "k-ann", "roles": ["reviewer"], "projects": ["desk"]},
            "ops": {"key": "k-ops", "roles": ["operator"]},
            "app": {"key": "k-app", "roles": ["application"]},
        }
        self.write_keys()
        said = HttpSettings.model_validate({"identity": "required", "api_keys_file": self.file, **settings})
        self.access = Access(said, warn=lambda *_: None, clock=self.clock)
        self.sessions = Sessions(self.access, secret="s" * 32, seconds=SESSION_SECONDS, clock=self.clock)
        self.links = LoginLinks(clock=self.clock)
        self.web = self._web(state, proxies)

    def write_keys(self) -> None:
        entries = {
            name: {**entry, "sha256": hashlib.sha256(entry["key"].encode()).hexdigest()}
            for name, entry in self.keys.items()
        }
        for entry in entries.values():
            del entry["key"]
        self.file.write_text(yaml.safe_dump({"keys": entries}))
        self.clock.now += LOOK_SECONDS

    async def give(self, command: type[TrainControl], **fields: Any) -> Any:
        self.sent.append((fields["project"], fields["run_id"], fields["principal"].name))
        return SimpleNamespace(id="command-1")

    def _web(self, state: Any, proxies: str) -> FastAPI:
        web = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        web.state.console = state
        add_steering(web, state, self, ObjectStore("memory://"), None, Settings())  # type: ignore[arg-type]
        add_login_links(web, self.links, self.access)
        answer_errors(web)

        @web.get("/")
        @needs(Role.VIEWER)
        async def page(request: Request) -> HTMLResponse:
            session = session_of(request.scope)
            return HTMLResponse(f"{caller_of(request).name} {session.csrf if session else ''}")

        guard(web.routes, self.access)
        add_authentication(web, self.access, self.sessions, self.links, proxies=proxies)
        return web

    def browser(
        self, base_url: str = "http://127.0.0.1:8080", *, peer: str = "127.0.0.1"
    ) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.web, client=(peer, 123))
        return httpx.AsyncClient(transport=transport, base_url=base_url, headers=HTML)

    async def link(self, key: str = "k-ann") -> str:
        async with self.browser() as program, AsyncClient("http://console", key, http=program) as client:
            link = await client.login_link()
        assert link.url == f"http://console{link.path}"
        return link.path


@pytest.fixture
def console(tmp_path: Path, state: Any, desk: Any) -> Console:
    state.apply(desk.started())
    return Console(tmp_path, state)


@pytest.fixture
async def browser(console: Console) -> AsyncIterator[httpx.AsyncClient]:
    async with console.browser() as opened:
        yield opened


async def login(browser: httpx.AsyncClient, key: str = "k-ann") -> str:
    """Log in by a key, and return the session's CSRF token."""
    answer = await browser.post("/login", data={"key": key})
    assert (answer.status_code, answer.headers["location"]) == (303, "./"), answer.text
    return (await browser.get("/")).text.split()[1]


def cookie(answer: httpx.Response) -> Any:
    (morsel,) = SimpleCookie(answer.headers["set-cookie"]).values()
    return morsel


async def test_a_browser_without_a_session_gets_the_form(browser: httpx.AsyncClient) -> None:
    for path, action in (("/", "./login"), ("/a/b", "../login"), ("/login", "./login")):
        answer = await browser.get(path)
        assert answer.status_code == 401
        assert f'action="{action}"' in answer.text
        assert not re.search("<script|src=|<link", answer.text), "it needs nothing else"
    program = await browser.get("/", headers={"accept": "application/json"})
    assert (program.status_code, program.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("form", "status", "told"),
    [
        ({"key": "nope"}, 401, "unknown"),
        ({}, 401, "no API key or token came"),
        ({"key": "k-app"}, 403, "app may read no project"),
        ({"link": "nope"}, 401, "used or is too old"),
        ({"key": "k" * FORM_BYTES}, 401, "no API key or token came"),
    ],
)
async def test_who_is_not_let_in_is_told_why(
    browser: httpx.AsyncClient, form: dict[str, str], status: int, told: str
) -> None:
    answer = await browser.post("/login", data=form)
    assert answer.status_code == status
    assert told in answer.text
    assert "set-cookie" not in answer.headers


async def test_a_key_begins_a_session(console: Console, browser: httpx.AsyncClient) -> None:
    answer = await browser.post("/login", data={"key": " k-ann "})
    said = cookie(answer)
    assert said.key == "tunewheel-8080"
    assert (said["path"], said["samesite"], said["httponly"], said["secure"]) == ("/", "strict", True, "")
    assert int(said["max-age"]) == SESSION_SECONDS
    assert "k-ann" not in said.value
    assert (await browser.get("/")).text.startswith("ann ")
    assert (await browser.get("/login")).status_code == 303, "who is logged in has no form to fill in"
    console.clock.now += SESSION_SECONDS
    assert (await browser.get("/")).status_code == 401


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("https://console.example", {}),
        ("http://console.example", {"x-forwarded-proto": "https"}),
        ("http://console.example", {"origin": "https://console.example"}),
    ],
)
async def test_under_tls_the_cookie_is_this_hosts_alone(
    console: Console, url: str, headers: dict[str, str]
) -> None:
    async with console.browser(url) as browser:
        answer = await browser.post("/login", data={"key": "k-ann"}, headers=headers)
        said = cookie(answer)
        assert (said.key, said["secure"], said["path"]) == ("__Host-tunewheel", True, "/")
        sent = {"cookie": f"__Host-tunewheel={said.value}", **headers}
        assert (await browser.get("/", headers=sent)).status_code == 200
        tossed = {"cookie": f"tunewheel={said.value}", **headers}
        assert (await browser.get("/", headers=tossed)).status_code == 401, "anybody's neighbour can set it"


async def test_a_login_ends_the_session_before_it(browser: httpx.AsyncClient) -> None:
    first = await login(browser)
    before = dict(browser.cookies)
    assert await login(browser, "k-ops") != first
    assert (await browser.get("/")).text.startswith("ops ")
    browser.cookies.clear()
    assert (await browser.get("/", headers=_cookies(before))).status_code == 401


def _cookies(jar: dict[str, str]) -> dict[str, str]:
    return {"cookie": "; ".join(f"{name}={value}" for name, value in jar.items())}


async def test_forged_cookies_are_nobodys(console: Console, browser: httpx.AsyncClient) -> None:
    await login(browser)
    ((name, value),) = dict(browser.cookies).items()
    browser.cookies.clear()
    foreign = Sessions(console.access, secret="t" * 32, seconds=SESSION_SECONDS, clock=console.clock)
    answer = HTMLResponse()
    scope = {"type": "http", "headers": [(b"host", b"127.0.0.1:8080")], "path": "/", "scheme": "http"}
    foreign.write(foreign.begin(_credential()), HTTPConnection(scope | {"server": None}), answer)
    body, signature = value.rsplit(".", 1)
    flipped = ("B" if body[0] == "A" else "A") + body[1:]
    other = SimpleCookie(answer.headers["set-cookie"])[name].value
    for forged in (f"{flipped}.{signature}", f"{body}.{signature[:-2]}", body, "", "x", other):
        assert (await browser.get("/", headers=_cookies({name: forged}))).status_code == 401
    assert (await browser.get("/", headers=_cookies({name: value}))).status_code == 200


def _credential(name: str = "ann", **more: Any) -> Credential:
    return Credential(principal=Principal(name=name), **more)


async def test_a_link_logs_in_once_as_whoever_asked_for_it(
    console: Console, browser: httpx.AsyncClient
) -> None:
    link = await console.link()
    assert (await browser.head(link)).status_code == 401, "only a visit uses it up"
    answer = await browser.get(link)
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    assert (await browser.get("/")).text.startswith("ann ")
    async with console.browser() as second:
        again = await second.get(link)
        assert (again.status_code, "used or is too old" in again.text) == (401, True)
    late = await console.link()
    console.clock.now += LINK_SECONDS
    assert (await browser.get(late)).status_code == 401


async def test_another_websites_link_asks_first(console: Console, browser: httpx.AsyncClient) -> None:
    link = await console.link()
    answer = await browser.get(link, headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    found = re.search(r'name="link" type="hidden" value="([^"]+)"', answer.text)
    assert found
    assert (await browser.post("/login", data={"link": found[1]})).status_code == 303
    markup = await browser.get('/login?link="><b>', headers={"sec-fetch-site": "cross-site"})
    assert "<b>" not in markup.text


async def test_a_link_is_made_for_keys_of_readers_alone(console: Console, browser: httpx.AsyncClient) -> None:
    for key, status in (("k-app", 403), ("nope", 401)):
        answer = await browser.post("/v1/login-links", headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == status
    csrf = await login(browser)
    answer = await browser.post("/v1/login-links", headers={"x-csrf-token": csrf})
    assert answer.status_code == 401, "a session makes no further session"


async def test_a_key_that_was_changed_or_taken_away_ends_its_sessions_and_links(
    console: Console, browser: httpx.AsyncClient
) -> None:
    await login(browser)
    link = await console.link()
    console.keys["ann"]["key"] = "k-new"
    console.write_keys()
    assert (await browser.get("/")).status_code == 401
    assert (await browser.get(link)).status_code == 401
    await login(browser, "k-new")
    del console.keys["ann"]
    console.write_keys()
    assert (await browser.get("/")).status_code == 401


async def test_a_changed_role_counts_within_a_session(console: Console, browser: httpx.AsyncClient) -> None:
    csrf = await login(browser)
    pause = "/v1/projects/desk/runs/run-1/pause"
    assert (await browser.post(pause, headers={"x-csrf-token": csrf})).status_code == 403
    console.keys["ann"]["roles"] = ["operator"]
    console.write_keys()
    assert (await browser.post(pause, headers={"x-csrf-token": csrf})).status_code == 202
    console.keys["ann"]["roles"] = ["application"]
    console.write_keys()
    answer = await browser.get("/")
    assert (answer.status_code, "ann may read no project" in answer.text) == (403, True)


async def test_a_cookie_changes_nothing_without_the_csrf_token(
    console: Console, browser: httpx.AsyncClient
) -> None:
    csrf = await login(browser, "k-ops")
    pause = "/v1/projects/desk/runs/run-1/pause"
    for headers in ({}, {"x-csrf-token": ""}, {"x-csrf-token": csrf[:-1]}, {"x-csrf-token": "é"}):
        raw = {name: value.encode() for name, value in headers.items()}
        answer = await browser.post(pause, headers=raw)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "csrf")
    assert not console.sent
    assert (await browser.post(pause, headers={"x-csrf-token": csrf})).status_code == 202
    browser.cookies.clear()
    assert (await browser.post(pause, headers={"authorization": "Bearer k-ops"})).status_code == 202
    assert console.sent == [("desk", "run-1", "ops")] * 2


async def test_an_unknown_run_tells_nothing_to_somebody_without_the_role(browser: httpx.AsyncClient) -> None:
    csrf = await login(browser)
    known, unknown = [
        await browser.post(f"/v1/projects/desk/runs/{run}/pause", headers={"x-csrf-token": csrf})
        for run in ("run-1", "run-2")
    ]
    assert (known.status_code, known.text) == (unknown.status_code, unknown.text)
    assert known.status_code == 403


async def test_logging_out_ends_the_session_everywhere(console: Console, browser: httpx.AsyncClient) -> None:
    csrf = await login(browser)
    copied = _cookies(dict(browser.cookies))
    assert (await browser.post("/logout", data={"csrf": "other"})).status_code == 403
    assert (await browser.get("/")).status_code == 200
    answer = await browser.post("/logout", data={"csrf": csrf})
    assert (answer.status_code, dict(browser.cookies)) == (303, {})
    assert (await browser.get("/", headers=copied)).status_code == 401
    assert (await browser.post("/logout")).status_code == 303, "which is no 2xx"


async def test_a_bearer_key_counts_before_a_cookie(browser: httpx.AsyncClient) -> None:
    await login(browser)
    assert (await browser.get("/", headers={"authorization": "Bearer k-ops"})).text.strip() == "ops"
    assert (await browser.get("/", headers={"authorization": "Bearer nope"})).status_code == 401
    assert (await browser.get("/", headers={"authorization": "Basic eDp5"})).text.startswith("ann ")


async def test_an_address_that_fails_too_often_waits(console: Console, browser: httpx.AsyncClient) -> None:
    for _ in range(FAILURES):
        assert (await browser.post("/login", data={"key": "nope"})).status_code == 401
    assert (await browser.post("/login", data={"key": "k-ann"})).status_code == 429
    assert (await browser.get(await console.link())).status_code == 429


@pytest.mark.parametrize(
    ("proxies", "peer", "sent", "status"),
    [
        ("10.0.0.0/8", "10.1.2.3", "203.0.113.7", 303),
        ("192.0.2.1, 10.1.2.3", "10.1.2.3", "203.0.113.7", 303),
        ("fd00::/8", "fd00::1", "2001:db8::7", 303),
        ("10.0.0.0/8", "::ffff:10.1.2.3", "203.0.113.7", 303),
        ("10.1.2.3", "::ffff:10.1.2.4", "203.0.113.7", 429),
        ("10.0.0.0/8", "10.1.2.3", "203.0.113.7, 198.51.100.9", 429),  # the proxy's own word comes last
        ("10.0.0.0/8", "192.0.2.5", "203.0.113.7", 429),
        ("", "10.1.2.3", "203.0.113.7", 429),
        ("", "127.0.0.1", "203.0.113.7", 429),
    ],
    ids=[
        "network",
        "address",
        "IPv6",
        "a socket of both kinds",
        "a stranger at it",
        "what the browser wrote",
        "a stranger",
        "nobody is trusted",
        "loopback",
    ],
)
async def test_behind_a_proxy_each_browser_has_its_own_count_and_none_chooses_it(
    proxies: str, peer: str, sent: str, status: int, tmp_path: Path, state: Any, desk: Any
) -> None:
    state.apply(desk.started())
    async with Console(tmp_path, state, proxies=proxies).browser(peer=peer) as browser:
        failing = {"x-forwarded-for": "198.51.100.9"}
        for _ in range(FAILURES):
            answer = await browser.post("/login", data={"key": "nope"}, headers=failing)
            assert answer.status_code == 401
        answer = await browser.post("/login", data={"key": "k-ann"}, headers=failing)
        assert answer.status_code == 429
        answer = await browser.post("/login", data={"key": "k-ann"}, headers={"x-forwarded-for": sent})
        assert answer.status_code == status


@pytest.mark.parametrize("wrong", ["*", "ingress", "10.0.0.1/8", "10.0.0.0/8 10.1.0.0/16"])
def test_proxies_that_could_never_match_are_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match="addresses or networks, separated by commas"):
        Settings(trusted_proxies=wrong)


@pytest.mark.parametrize(
    ("failed", "later", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("::ffff:203.0.113.7", "203.0.113.7", True),
        ("203.0.113.7", "203.0.113.8", False),
        ("x" * 60_000 + "1", "x" * 60_000 + "2", True),
    ],
)
def test_who_has_many_addresses_has_one_count(failed: str, later: str, is_same: bool) -> None:
    attempts = Attempts()
    assert attempts.begin(failed)
    attempts.succeed(later if is_same else failed)
    assert all(attempts.begin(failed) for _ in range(FAILURES))
    assert attempts.begin(later) is not is_same


def test_one_client_of_ipv6_does_not_make_others_forgotten() -> None:
    attempts = Attempts()
    assert all(attempts.begin("203.0.113.7") for _ in range(FAILURES))
    for n in range(ADDRESSES + 1):
        attempts.begin(f"2001:db8::{n:x}")
    assert not attempts.begin("203.0.113.7")


def test_failures_are_forgotten_with_time_and_successes_are_none() -> None:
    clock = Clock()
    attempts = Attempts(clock=clock)
    for _ in range(FAILURES + 1):
        assert attempts.begin("a")
        attempts.succeed("a")
    assert all(attempts.begin("a") for _ in range(FAILURES))
    assert not attempts.begin("a")
    assert attempts.begin("b")
    clock.now += FAILURE_SECONDS
    assert attempts.begin("a")


def test_a_principal_has_some_links_at_once() -> None:
    links = LoginLinks()
    secrets = [links.make(_credential())[0] for _ in range(LINKS_EACH + 1)]
    other, _ = links.make(_credential("ops"))
    with pytest.raises(NotAuthenticated):
        links.use(secrets[0])
    assert {links.use(secret).principal.name for secret in secrets[1:]} == {"ann"}
    assert links.use(other).principal.name == "ops"


async def test_a_session_ends_with_its_token(console: Console) -> None:
    sessions, now = console.sessions, console.clock.now
    assert sessions.begin(_credential(expires_at=now + 5)).expires_at == now + 5
    assert sessions.begin(_credential(expires_at=now + 1e6)).expires_at == now + SESSION_SECONDS


async def test_where_identity_is_open_nobody_logs_in(tmp_path: Path, state: Any) -> None:
    console = Console(tmp_path, state, identity="open")
    async with console.browser() as browser:
        assert (await browser.get("/")).status_code == 200
        assert (await browser.post("/v1/login-links")).status_code == 409

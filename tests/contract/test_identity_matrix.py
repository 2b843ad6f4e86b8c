"""Every route, with every role in every project by every credential: who comes in, and that nobody else does.

The routes are those of the apps that the services serve; a route without a sample request fails. Which role a
route should need stands in docs/security.md, and is compared with what it does need.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import Need, guard, needs, needs_of
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.settings import HttpSettings
from tunewheel_testing.log import MemoryLog
from tunewheel_testing.oidc_issuer import Issuer

from .asgi import ask
from .identity_callers import FOREIGNER, NOBODY, ROLES, Credential, holders, strangers, write_keys
from .identity_samples import CONTROL, PROJECT, SAMPLES, Sample, build, running

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(f'"{PROJECT}|>{PROJECT}<'.encode())
"""How JSON and a page name the project."""
SERVICES = sorted(path.parent.name for path in ROOT.glob("services/*/pyproject.toml"))
OPEN = {"/health/live", "/health/ready", "/metrics"}
UNROUTED = {"console": ("/login", "/logout")}
"""Paths that are answered before any route is looked for."""
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE")


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer("ES256") as made:
        yield made


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> dict[str, Any]:
    """Settings of a service that knows a key and a group for every role in every scope."""
    file = write_keys(tmp_path_factory.mktemp("identity") / "keys.yaml")
    trusted = {"oidc_issuer": issuer.url, "oidc_audience": issuer.audience}
    return {"identity": "required", "api_keys_file": file, **trusted}


@pytest.fixture(scope="module")
def credentials(issuer: Issuer) -> list[Credential]:
    return [NOBODY, *strangers(issuer), *holders(issuer)]


def routes_of(app: Any) -> Iterator[tuple[str, str, Need]]:
    """Yield method, path and need of every route; what is mounted, by GET."""
    for path, route, need in needs_of(app.routes):
        assert need is not None, f"{path} names no role"
        yield from _methods(path or "/", route, need)
        if isinstance(route, Mount):
            for below, inner, _ in needs_of(route.routes, path):
                yield from _methods(below, inner, need)


def _methods(path: str, route: BaseRoute, need: Need) -> Iterator[tuple[str, str, Need]]:
    assert isinstance(route, Route | Mount), f"{path}: connect to it as to the page's socket"
    methods = route.methods if isinstance(route, Route) else None
    for method in sorted((methods or {"GET"}) - {"HEAD"}):
        yield method, path, need


@pytest.mark.parametrize("name", SAMPLES)
async def test_every_route_has_a_sample_and_every_sample_a_route(
    name: str, tmp_path: Path, identity: dict[str, Any]
) -> None:
    async with running(name, tmp_path, MemoryLog(), **identity) as app:
        assert {f"{method} {path}" for method, path, _ in routes_of(app)} == set(SAMPLES[name])


async def complaints(
    app: Any,
    samples: Mapping[str, list[Sample]],
    credentials: list[Credential],
    log: MemoryLog,
    every: int = 1,
) -> list[str]:
    """Return what each route answers, publishes or tells to somebody to whom it should not.

    Each is asked with the first of ``credentials``, by one who may elsewhere, because a route that reads the
    project from the body checks that itself, and with one in ``every`` of the others: the next route with the
    next ones.
    """
    wrong, (nobody, *others) = list[str](), credentials
    for number, (method, path, need) in enumerate(routes_of(app)):
        elsewhere = [one for one in others if one.scope == "not-held" and one.has(need)][:1]
        asking = dict.fromkeys([nobody, *elsewhere, *others[number % every :: every]])
        for sample, who in itertools.product(samples[f"{method} {path}"], asking):
            log.events.clear()
            headers = {**sample.headers, **who.headers}
            answer = await ask(app, method, sample.target, headers=headers, body=sample.raw)
            what = f"{who.name}: {method} {sample.target}"
            expected = who.expected(need, sample)
            if answer.status != expected:
                wrong.append(f"{what}: {answer} instead of {expected}")
            if expected != sample.status and log.events:
                wrong.append(f"{what} published {log.events}")
            told = who.scope == "held" if sample.tells == "held" else sample.tells and who.scope != "not-held"
            tells = bool(told) and expected == sample.status
            if (sample.refused is None or who.role is None) and bool(NAMED.search(answer.body)) != tells:
                wrong.append(f"{what} tells of {PROJECT}, or does not: {answer.body!r}")
    return wrong


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.nightly("matrices"))])
@pytest.mark.parametrize("name", SAMPLES)
async def test_who_was_granted_comes_in_and_nobody_else(
    name: str, every: int, tmp_path: Path, identity: dict[str, Any], credentials: list[Credential]
) -> None:
    log = MemoryLog()
    async with running(name, tmp_path, log, **identity) as app:
        assert await complaints(app, SAMPLES[name], credentials, log, every) == []


async def test_a_door_left_open_is_told(credentials: list[Credential], identity: dict[str, Any]) -> None:
    @needs(Role.OPERATOR)
    async def name_the_project(_: Request) -> JSONResponse:
        return JSONResponse({"project": PROJECT})

    guarded = [Route("/leaks", name_the_project)]
    guard(guarded, Access(HttpSettings(**identity), warn=print))
    app = Starlette(routes=[Route("/open", name_the_project), *guarded])
    samples = {f"GET {path}": [Sample(path, tells=True)] for path in ("/open", "/leaks")}
    by_day = await complaints(app, samples, credentials, MemoryLog(), every=5)
    assert [one for one in by_day if one.startswith("the key of operator-not-held: GET /leaks tells of desk")]
    told = await complaints(app, samples, credentials, MemoryLog())
    for sentence in (
        "no credentials: GET /open",
        "the key of viewer-all: GET /open",
        "a token that has ended: GET /open",
        "the key of operator-not-held: GET /leaks tells of desk",
    ):
        assert [complaint for complaint in told if complaint.startswith(sentence)], sentence
    assert not [complaint for complaint in told if complaint.startswith("no credentials: GET /leaks")]
    assert await answered(app, samples, MemoryLog()) >= {"no credentials: GET /open"}


def spellings(target: str) -> Iterator[str]:
    """Yield ``target``, what a proxy, a router or a file system may take for the same, and the same with
    another project in the query."""
    path, mark, query = target.partition("?")
    head, _, tail = path.rpartition("/")
    for other in (
        path,
        f"{path}/",
        f"/{path}",
        f"{head}//{tail}",
        f"/.{path}",
        f"{head}/./{tail}",
        f"{head}/../{tail}",
        f"/health/..{path}",
        f"{head}/%{ord(tail[0]):02x}{tail[1:]}" if tail else "/%2e",
        f"{head}%2f{tail}",
        f"{head}/%2e/{tail}",
        path.upper(),
        f"{path};x=1",
        f"{path}%00",
        f"{path}%20",
    ):
        yield f"{other}{mark}{query}"
    yield f"{path.replace(PROJECT, '%64esk')}{mark}{query}"
    yield f"{path}?{query}{'&' * bool(mark)}project=shop"
    yield f"{path}?project=shop{'&' * bool(mark)}{query}"


def ways(key: str, target: str) -> Iterator[tuple[str, str]]:
    """Yield methods and targets: any method on ``target`` as it is, and its own method, GET and HEAD on any
    spelling of it. Another method on another spelling would be both at once, and shows nothing new."""
    own = key.partition(" ")[0]
    yield from ((method, target) for method in METHODS)
    yield from itertools.product(sorted({own, "GET", "HEAD"}), {*spellings(target)} - {target})


async def answered(app: Any, samples: Mapping[str, list[Sample]], log: MemoryLog) -> set[str]:
    """Return the requests, by any method and in any spelling, of which strangers got more than a refusal.

    Or somebody who has every role in another project, where the request is about one: the console alone shows
    its page, with what its reader may see, by any path.
    """
    unknown = Credential("an unknown key", "Bearer nobody-knows-me")
    found = set[str]()
    for key, (sample, *_) in samples.items():
        asking = [NOBODY, unknown, *([FOREIGNER] if sample.refused is not None else [])]
        for (method, target), who in itertools.product(ways(key, sample.target), asking):
            headers = {**sample.headers, **who.headers}
            answer = await ask(app, method, target, headers=headers, body=sample.raw)
            shown = who is FOREIGNER and answer.status == 200 and not NAMED.search(answer.body)
            if log.events or not (300 <= answer.status < 500 or shown):
                found.add(f"{who.name}: {method} {target}")
    return found


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.nightly("matrices"))])
@pytest.mark.parametrize("name", SAMPLES)
async def test_no_method_and_no_spelling_of_a_path_answers_a_stranger(
    name: str, every: int, tmp_path: Path, identity: dict[str, Any]
) -> None:
    """Of one route in five, and every night of each: the same guard stands before all of them."""
    log, unrouted = MemoryLog(), UNROUTED.get(name, ())
    async with running(name, tmp_path, log, **identity) as app:
        asking = {f"{method} {path}" for method, path, need in routes_of(app) if need.roles}
        asked = [(key, found) for key, found in SAMPLES[name].items() if key in asking]
        samples = dict(asked[::every])
        samples |= {f"POST {path}": [Sample(path)] for path in unrouted}
        assert await answered(app, samples, log) == set()


def rows_of(name: str, app: Any) -> Iterator[str]:
    """Yield a row of the table on the page for every route; one for what is mounted."""
    for path, route, need in needs_of(app.routes):
        assert need is not None
        for method, shown, _ in _methods(path or "/", route, need):
            below = " and all below" if isinstance(route, Mount) else ""
            about = any(sample.refused for sample in SAMPLES[name][f"{method} {shown}"])
            project = "path" if "{project}" in shown else "request" if about else "any"
            project = "all" if need.everywhere else project if need.roles else "none"
            ticks = " | ".join("✓" if ROLES[role] & {*(need.roles or Role)} else "" for role in Role)
            yield f"| {name} | `{method} {shown}`{below} | {project} | {ticks} |"


async def test_the_page_on_security_tells_which_role_each_route_needs(
    tmp_path: Path, identity: dict[str, Any]
) -> None:
    rows = [f"| service | route | project | {' | '.join(Role)} |", f"|---|---|---|{':-:|' * len(Role)}"]
    for name in SAMPLES:
        async with running(name, tmp_path / name, MemoryLog(), **identity) as app:
            rows += rows_of(name, app)
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("<!-- routes: begin -->\n")
    told, end, _ = rest.partition("<!-- routes: end -->")
    right = "\n".join(rows)
    assert end, "the table stands between <!-- routes: begin --> and <!-- routes: end -->"
    assert told.strip() == right, f"put this between the marks of docs/security.md:\n{right}"


async def test_a_browsers_session_may_what_its_key_may(
    tmp_path: Path, identity: dict[str, Any], credentials: list[Credential]
) -> None:
    page, control = (SAMPLES["console"][key][0] for key in ("GET /projects", f"POST {CONTROL}"))
    form, log = {"content-type": "application/x-www-form-urlencoded"}, MemoryLog()
    async with running("console", tmp_path, log, **identity) as app:
        for who in credentials:
            key = (who.authorization or "").removeprefix("Bearer ")
            body = f"key={quote(key)}".encode()
            login = await ask(
                app, "POST", "/login", headers={**form, "content-length": str(len(body))}, body=body
            )
            reads = who.role is not None and Role.VIEWER in ROLES[who.role]
            assert login.status == (303 if reads else 403 if who.role else who.stranger), who.name
            cookie = {"cookie": login.headers.get("set-cookie", "").partition(";")[0]}
            shown = await ask(app, "GET", page.target, headers=cookie)
            assert shown.status == (200 if reads else 401), who.name
            assert bool(NAMED.search(shown.body)) == (reads and who.scope != "not-held"), who.name
            refused = await ask(app, "POST", control.target, headers=cookie)
            assert refused.status == (403 if reads else 401), f"{who.name}: the CSRF token is missing"
    assert log.events == []


@pytest.mark.parametrize("name", sorted({*SERVICES} - {"engine"}))
async def test_health_and_metrics_are_told_to_anybody_and_nothing_else_is(
    name: str, tmp_path: Path, identity: dict[str, Any]
) -> None:
    service = build(name, tmp_path, **identity)
    health = service.doors.health_asgi()
    told = {path for path, _, _ in needs_of(health.routes)}
    assert {"/health/live", "/health/ready"} <= told <= OPEN
    for path in told:
        assert (await ask(health, "GET", path, headers={})).status in (200, 503)
        assert (await ask(health, "POST", path, headers={})).status == 405
    if name in SAMPLES:
        assert not OPEN & {path for _, path, _ in routes_of(service.doors.asgi())}
    else:
        assert service.doors.mounted is None, "its routes need samples"

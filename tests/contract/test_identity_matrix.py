"""Every route, with every role in every project by every credential: who comes in, and that nobody else does.

The routes are those of the apps that the services serve; a route without a sample request fails. Which role a
route should need stands in docs/security.md, and is compared with what it does need.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.routing import BaseRoute, Mount, Route
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.identity.guard import Need, needs_of
from tunewheel_runtime.identity.roles import Role

from .asgi import ask
from .identity_samples import PROJECT, SAMPLES, Log, Sample, running

ROLES: Mapping[Role, set[Role]] = {
    Role.VIEWER: {Role.VIEWER},
    Role.PUBLISHER: {Role.PUBLISHER},
    Role.APPLICATION: {Role.APPLICATION},
    Role.REVIEWER: {Role.REVIEWER, Role.VIEWER},
    Role.OPERATOR: {Role.OPERATOR, Role.VIEWER},
}
"""What each role lets its holder do: reviewers and operators read."""
SCOPES: Mapping[str, list[str] | None] = {"held": [PROJECT], "not-held": ["shop"], "all": None}
NAMED = f'"{PROJECT}'.encode()
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE")


@dataclass(frozen=True)
class Credential:
    """``role`` None: nobody that the service knows."""

    name: str
    authorization: str | None
    role: Role | None = None
    scope: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": self.authorization} if self.authorization is not None else {}

    def expected(self, need: Need, sample: Sample) -> int:
        """Return the status that a request is to be answered with."""
        if self.role is None:
            return 401
        if ROLES[self.role].isdisjoint(need.roles):
            return 403
        return sample.status if self.scope != "not-held" or sample.refused is None else sample.refused


STRANGERS = [
    Credential("no credentials", None),
    Credential("an unknown key", "Bearer nobody-knows-me"),
    Credential("an empty key", "Bearer "),
    Credential("another scheme", "Basic b3BlcmF0b3ItYWxsOg=="),
    Credential("the name of a key", "Bearer operator-all"),
]


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a service that knows a key and a group for every role in every scope."""
    grants = {
        f"{role.value}-{scope}": {"roles": [role.value]} | ({"projects": projects} if projects else {})
        for role, (scope, projects) in itertools.product(Role, SCOPES.items())
    }
    grants["everything-not-held"] = {"roles": [role.value for role in Role], "projects": SCOPES["not-held"]}
    keys = {name: {"sha256": content_sha256(f"key of {name}".encode()), **g} for name, g in grants.items()}
    file = tmp_path_factory.mktemp("identity") / "keys.yaml"
    file.write_text(yaml.safe_dump({"keys": keys, "groups": grants}))
    return {"identity": "required", "api_keys_file": file}


@pytest.fixture(scope="module")
def holders() -> list[Credential]:
    return [
        Credential(f"the key of {role.value}-{scope}", f"Bearer key of {role.value}-{scope}", role, scope)
        for role, scope in itertools.product(Role, SCOPES)
    ]


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
    async with running(name, tmp_path, Log(), **identity) as app:
        assert {f"{method} {path}" for method, path, _ in routes_of(app)} == set(SAMPLES[name])


@pytest.mark.parametrize("name", SAMPLES)
async def test_who_was_granted_comes_in_and_nobody_else(
    name: str, tmp_path: Path, identity: dict[str, Any], holders: list[Credential]
) -> None:
    log, wrong, asked = Log(), list[str](), 0
    async with running(name, tmp_path, log, **identity) as app:
        for method, path, need in routes_of(app):
            for sample in SAMPLES[name][f"{method} {path}"]:
                for who in (*STRANGERS, *holders):
                    log.events.clear()
                    answer = await ask(
                        app, method, sample.target, headers={**sample.headers, **who.headers}, body=sample.raw
                    )
                    asked += 1
                    what = f"{who.name}: {method} {sample.target}"
                    expected = who.expected(need, sample)
                    if answer.status != expected:
                        wrong.append(f"{what}: {answer} instead of {expected}")
                    if expected != sample.status and log.events:
                        wrong.append(f"{what} published {log.events}")
                    tells = sample.tells and expected == sample.status and who.scope != "not-held"
                    if (sample.refused is None or who.role is None) and (NAMED in answer.body) != tells:
                        wrong.append(f"{what} tells of {PROJECT}, or does not: {answer.body!r}")
    assert asked >= 20 * len(SAMPLES[name])
    assert wrong == []


def spellings(target: str) -> Iterator[str]:
    """Yield ``target`` and what a proxy, a router or a file system may take for the same."""
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


@pytest.mark.parametrize("name", SAMPLES)
async def test_no_method_and_no_spelling_of_a_path_answers_a_stranger(
    name: str, tmp_path: Path, identity: dict[str, Any]
) -> None:
    """Nor does somebody who has every role in another project get anything of this one: the console shows its
    page, with what its reader may see, by any path."""
    log, open_to = Log(), set[str]()
    foreigner = Credential("everything in shop", "Bearer key of everything-not-held")
    async with running(name, tmp_path, log, **identity) as app:
        for samples in SAMPLES[name].values():
            sample = samples[0]
            for method, target in itertools.product(METHODS, spellings(sample.target)):
                for who in (*STRANGERS[:2], *([foreigner] if sample.refused is not None else [])):
                    headers = {**sample.headers, **who.headers}
                    answer = await ask(app, method, target, headers=headers, body=sample.raw)
                    shown = who is foreigner and answer.status == 200 and NAMED not in answer.body
                    if not (300 <= answer.status < 500 or shown):
                        open_to.add(f"{who.name}: {method} {target}: {answer}")
    assert open_to == set()
    assert log.events == []

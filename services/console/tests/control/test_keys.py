"""Operators change the file of keys where the console may write it. No answer holds a hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI
from tunewheel_console.control.identity import add_keys
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard, set_caller
from tunewheel_runtime.identity.keys import read_keys, sum_of
from tunewheel_runtime.identity.roles import Caller, Grant, Role
from tunewheel_runtime.refusals import answer_errors
from tunewheel_runtime.settings import HttpSettings

EVERYWHERE = Grant(frozenset({Role.OPERATOR}))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    keys = {"ann": {"sha256": sum_of("k-ann"), "roles": ["operator"]}}
    path.write_text(yaml.safe_dump({"keys": keys, "groups": {"leads": {"roles": ["reviewer"]}}}))
    return path


async def send(
    file: Path | None,
    method: str,
    path: str = "",
    json: Any = None,
    *,
    grant: Grant = EVERYWHERE,
    **query: Any,
) -> httpx.Response:
    web = FastAPI(openapi_url=None)
    add_keys(web, file)
    answer_errors(web)
    guard(web.routes, Access(HttpSettings(identity="open"), warn=print))

    async def called(scope: Any, receive: Any, send: Any) -> None:
        set_caller(scope, Caller(Principal(name="ann"), (grant,)))
        await web(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(called), base_url="http://console") as http:
        return await http.request(method, f"/v1/keys{path}", json=json, params=query)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["param"]


async def test_a_key_is_told_once_and_counts(file: Path):
    order = {"name": "desk", "roles": ["publisher"], "projects": ["desk"], "groups": ["leads"]}
    answer = await send(file, "POST", json=order)
    key = answer.json()["key"]
    ring = read_keys(file)
    caller = ring.caller(Principal(name="desk"))
    assert (answer.status_code, ring.find(key)) == (201, Principal(name="desk"))
    assert (caller.may(Role.PUBLISHER, "desk"), caller.may(Role.PUBLISHER, "shop")) == (True, False)
    listed = await send(file, "GET")
    assert listed.json()["keys"][1] == {
        "name": "desk", "roles": ["publisher"], "projects": ["desk"], "groups": ["leads"], "limits": None,
        "keys": 1,
    }  # fmt: skip
    assert (listed.json()["writable"], listed.json()["groups"]) == (True, ["leads"])
    assert key not in listed.text
    assert sum_of(key) not in listed.text


async def test_a_key_is_rotated_and_revoked(file: Path):
    first = (await send(file, "POST", json={"name": "desk", "roles": ["viewer"]})).json()["key"]
    second = (await send(file, "POST", "/desk/rotate", {"keep_old": True})).json()["key"]
    assert [read_keys(file).find(key) is not None for key in (first, second)] == [True, True]
    assert (await send(file, "DELETE", "/desk", old_only=True)).status_code == 204
    assert [read_keys(file).find(key) is not None for key in (first, second)] == [False, True]
    third = (await send(file, "POST", "/desk/rotate")).json()["key"]
    assert [read_keys(file).find(key) is not None for key in (second, third)] == [False, True]
    assert (await send(file, "DELETE", "/desk")).status_code == 204
    assert read_keys(file).find(third) is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "", {"name": "desk"}, 422, "roles"),
        ("POST", "", {"name": "desk", "roles": ["king"]}, 422, "roles"),
        ("POST", "", {"name": "desk", "roles": ["viewer"], "projects": ["A B"]}, 422, "projects.0"),
        ("POST", "", {"name": "desk", "groups": ["nobody"]}, 422, "groups"),
        ("POST", "", {"name": "ann", "roles": ["viewer"]}, 409, "name"),
        ("POST", "/none/rotate", {}, 404, "name"),
        ("DELETE", "/none", None, 404, "name"),
        ("DELETE", "/ann", None, 409, "name"),
        ("POST", "/ann/rotate", {}, 409, "name"),
    ],
)
async def test_what_cannot_be_changed_is_named(
    file: Path, method: str, path: str, body: Any, status: int, param: str
):
    before = file.read_text()
    assert refusal(await send(file, method, path, body)) == (status, param)
    assert file.read_text() == before


async def test_a_file_that_is_mounted_read_only_is_shown_and_not_changed(
    file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("os.access", lambda *_: False)
    listed = (await send(file, "GET")).json()
    assert (listed["writable"], len(listed["keys"])) == (False, 1)
    answer = await send(file, "POST", json={"name": "desk", "roles": ["viewer"]})
    assert (refusal(answer), "mounted" in answer.text) == ((409, "file"), True)


async def test_without_a_file_there_is_no_key(file: Path):
    assert (await send(None, "GET")).json() == {"keys": [], "groups": [], "writable": False}
    assert refusal(await send(None, "DELETE", "/desk")) == (409, "file")


@pytest.mark.parametrize(("role", "projects"), [(Role.OPERATOR, {"desk"}), (Role.VIEWER, None)])
async def test_an_operator_of_one_project_changes_no_key(file: Path, role: Role, projects: set[str] | None):
    grant = Grant(frozenset({role}), None if projects is None else frozenset(projects))
    for method, path in (("GET", ""), ("POST", ""), ("POST", "/desk/rotate"), ("DELETE", "/desk")):
        body = {} if method == "POST" else None
        assert (await send(file, method, path, body, grant=grant)).status_code == 403

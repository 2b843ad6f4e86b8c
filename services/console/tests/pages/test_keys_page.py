"""Keys by form: who may, where the file may be written, and what asks first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI
from tunewheel_console.control.identity import add_keys
from tunewheel_console.pages.addresses import add_pages
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard, set_caller
from tunewheel_runtime.identity.roles import Caller, Grant, Role
from tunewheel_runtime.refusals import answer_errors
from tunewheel_runtime.settings import HttpSettings


async def page(file: Path | None) -> str:
    web = FastAPI(openapi_url=None)
    add_keys(web, file)
    add_pages(web)
    answer_errors(web)
    guard(web.routes, Access(HttpSettings(identity="open"), warn=print))

    async def called(scope: Any, receive: Any, send: Any) -> None:
        set_caller(scope, Caller(Principal(name="ann"), (Grant(frozenset({Role.OPERATOR})),)))
        await web(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(called), base_url="http://console") as http:
        return (await http.get("/keys")).text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    keys = {
        "ann": {"sha256": "a" * 64, "roles": ["operator"]},
        "bot": {"sha256": ["b" * 64, "c" * 64], "roles": ["publisher"]},
    }
    path.write_text(yaml.safe_dump({"keys": keys, "groups": {"leads": {"roles": ["reviewer"]}}}))
    return path


async def test_keys_are_made_rotated_and_revoked_by_form(file: Path):
    found = await page(file)
    orders = re.findall(r'data-order="[./]*v1/([^"]+)"[^>]*?(?:data-method="(\w+)")?>', found)
    assert orders == [
        ("keys", ""), ("keys/ann/rotate", ""), ("keys/bot/rotate", ""), ("keys/bot?old_only=true", "DELETE"),
        ("keys/bot/rotate", ""), ("keys/bot", "DELETE"),
    ], "nobody ends the key that they use"  # fmt: skip
    assert set(re.findall(r'name="roles\[\]" value="(\w+)"', found)) == {role.value for role in Role}
    assert 'name="groups[]" value="leads"' in found
    assert 'data-typed="bot"' in found
    assert "a" * 64 not in found


@pytest.mark.parametrize("missing", [True, False])
async def test_a_file_that_the_console_may_only_read_is_shown_without_forms(
    file: Path, monkeypatch: Any, missing: bool
):
    monkeypatch.setattr("tunewheel_console.control.identity.may_write", lambda _: False)
    found = await page(None if missing else file)
    assert "data-order" not in found
    assert "may only read the file of keys" in found
    assert missing or "publisher" in found

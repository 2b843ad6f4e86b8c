from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
from tunewheel_serve_gateway.errors import NotAuthenticated
from tunewheel_serve_gateway.keys import InvalidKeys, load_keys


def sha(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys.yaml"
    file.write_text(
        f"keys:\n  app:\n    sha256: {sha('secret-app')}\n    projects: [desk]\n"
        f"  ops:\n    sha256: {sha('secret-ops')}\n"
    )
    return file


def test_a_key_tells_who_calls(key_file: Path):
    ring = load_keys(key_file)
    assert ring.identify("Bearer secret-app").projects == {"desk"}
    assert ring.identify("bearer secret-ops").projects is None
    assert ring.identify("Bearer secret-ops").name == "ops"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic secret-app", "Bearer nope", "Bearer \udcff"]
)
def test_anything_else_is_refused(key_file: Path, header: str | None):
    with pytest.raises(NotAuthenticated):
        load_keys(key_file).identify(header)


def test_json_is_read_too(tmp_path: Path):
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": {"app": {"sha256": sha("k")}}}))
    assert load_keys(file).identify("Bearer k").name == "app"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("keys: {app: {sha256: plain}}", "keys.app.sha256"),
        ("keys: {app: {sha: x}}", "keys.app"),
        ("[]", "(body)"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_wrong_file_says_where(tmp_path: Path, content: str, said: str):
    file = tmp_path / "keys.yaml"
    file.write_text(content)
    with pytest.raises(InvalidKeys, match="TUNEWHEEL_API_KEYS_FILE") as caught:
        load_keys(file)
    assert said in str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path):
    with pytest.raises(InvalidKeys, match="cannot be read"):
        load_keys(tmp_path / "none.yaml")


def test_the_key_that_the_readme_makes_is_taken(tmp_path: Path):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (program,) = re.findall(r"python3 -c '(import .*secrets.*)'", readme)
    command = [sys.executable, "-c", program]
    key, digest = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
    assert len(key) >= 32
    sample = readme.split("```yaml\n")[1].split("```")[0]
    named = re.findall(r"<.*?>", sample)
    assert len(named) == 2
    file = tmp_path / "keys.yaml"
    for placeholder in named:
        sample = sample.replace(placeholder, digest, 1)
    file.write_text(sample)
    assert load_keys(file).identify(f"Bearer {key}").name


def test_a_name_that_is_given_twice_is_refused_with_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(f"keys:\n  desk: {{sha256: {'0' * 64}}}\n  desk: {{sha256: {'1' * 64}}}\n")
    with pytest.raises(InvalidKeys, match=r"keys\.desk is given in line 2 and again in line 3"):
        load_keys(file)


async def test_the_gateway_asks_for_keys(make_world: Any, key_file: Path):
    world = await make_world(api_keys_file=key_file)
    world.declare()
    world.declare("other")
    await world.serving(production="org/Tiny-Base")
    hello: Any = [{"role": "user", "content": "hi"}]

    def client(key: str) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key=key, max_retries=0)

    async with client("secret-app") as app, client("wrong") as stranger:
        assert (await app.chat.completions.create(model="desk", messages=hello)).choices
        with pytest.raises(openai.PermissionDeniedError):
            await app.chat.completions.create(model="other", messages=hello)
        with pytest.raises(openai.AuthenticationError):
            await stranger.chat.completions.create(model="desk", messages=hello)
        names = {model.id async for model in app.models.list()}
        assert names == {"desk", "desk/base", "org/Tiny-Base"}
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()
        with pytest.raises(openai.NotFoundError):
            await app.models.retrieve("other")
    (event,) = await world.completions()
    assert event.client == "app"
    assert "secret-app" not in event.model_dump_json()
    for method, path in (("post", "feedback"), ("get", "status")):
        async with getattr(world.session, method)(f"{world.url}/v1/{path}") as response:
            assert response.status == 401


async def test_feedback_stays_within_a_keys_projects(make_world: Any, key_file: Path):
    world = await make_world(api_keys_file=key_file)
    world.declare("other")
    await world.gateway.reconciler.reconcile()
    ops, app = ({"authorization": f"Bearer {key}"} for key in ("secret-ops", "secret-app"))
    async with await world.chat(model="other", headers=ops) as response:
        completion_id = (await response.json())["id"]
    body = {"completion_id": completion_id, "rating": "down"}
    async with world.session.post(f"{world.url}/v1/feedback", json=body, headers=app) as response:
        assert response.status == 403
    forgotten = {"completion_id": "chatcmpl-old", "rating": "down"}
    async with world.session.post(f"{world.url}/v1/feedback", json=forgotten, headers=app) as response:
        assert (response.status, (await response.json())["project"]) == (202, "desk")


async def test_a_key_sees_the_state_of_its_projects_only(make_world: Any, key_file: Path, eventually: Any):
    world = await make_world(api_keys_file=key_file)
    for project in ("desk", "other"):
        world.declare(project)
    world.engine.refuse_loads = True
    await world.desire("desk", production=("desk-1", 100))
    await world.desire("other", production=("other-1", 100))
    await eventually(lambda: len(world.gateway.reconciler.failures) == 2)
    seen = {}
    for key in ("secret-ops", "secret-app"):
        headers = {"authorization": f"Bearer {key}"}
        async with world.session.get(f"{world.url}/v1/status", headers=headers) as response:
            seen[key] = await response.json()
    assert set(seen["secret-ops"]["failed_adapters"]) == {"desk-1", "other-1"}
    assert set(seen["secret-app"]["failed_adapters"]) == {"desk-1"}
    assert set(seen["secret-app"]["projects"]) == {"desk"}
    assert seen["secret-ops"]["engine"]["url"] == world.engine.url
    assert seen["secret-app"]["engine"] == {"reachable": True}
    assert world.engine.url not in json.dumps(seen["secret-app"])
    body = {"model": "other", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"authorization": "Bearer secret-app"}
    async with world.session.post(f"{world.url}/v1/chat/completions", json=body, headers=headers) as response:
        assert (response.status, "other-1" in await response.text()) == (403, False)

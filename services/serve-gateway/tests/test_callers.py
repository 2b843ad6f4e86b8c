"""Who may ask which model, rate which completion and see which state."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from tunewheel_testing.waiting import until

HELLO: Any = [{"role": "user", "content": "hi"}]


def sha(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture
def identity(tmp_path: Path) -> dict[str, Any]:
    """Settings with the keys ``k-app`` (an application of desk), ``k-ops`` (of every project), ``k-view``
    (reads desk) and ``k-send`` (a publisher)."""
    keys = {
        "app": {"sha256": sha("k-app"), "projects": ["desk"]},
        "ops": {"sha256": sha("k-ops"), "roles": ["application", "operator"]},
        "view": {"sha256": sha("k-view"), "roles": ["viewer"], "projects": ["desk"]},
        "send": {"sha256": sha("k-send"), "roles": ["publisher"]},
    }
    file = tmp_path / "keys.yaml"
    file.write_text(json.dumps({"keys": keys}))
    return {"identity": "required", "api_keys_file": file}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def client(world: Any, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key=key, max_retries=0)


async def test_the_official_client_is_told_what_its_key_may_do(make_world: Any, identity: Any):
    world = await make_world(**identity)
    world.declare()
    world.declare("other")
    await world.serving(production="org/Tiny-Base")
    async with client(world, "k-app") as app, client(world, "wrong") as stranger:
        assert (await app.chat.completions.create(model="desk", messages=HELLO)).choices
        with pytest.raises(openai.AuthenticationError) as unknown:
            await stranger.chat.completions.create(model="desk", messages=HELLO)
        assert unknown.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()
        names = {model.id async for model in app.models.list()}
        assert names == {"desk", "desk/base", "org/Tiny-Base"}
    for key in ("k-view", "k-send"):
        async with client(world, key) as no_application:
            with pytest.raises(openai.PermissionDeniedError, match="lacks the role application") as refused:
                await no_application.chat.completions.create(model="desk", messages=HELLO)
            assert refused.value.code == "role_missing"
            with pytest.raises(openai.PermissionDeniedError):
                await no_application.models.list()
    (event,) = await world.completions()
    assert event.client == "app"
    assert "k-app" not in event.model_dump_json()
    assert len(world.engine.asked) == 1, "nobody else's request reached the engine"


async def test_a_project_of_others_looks_as_if_there_were_none(make_world: Any, identity: Any):
    world = await make_world(**identity)
    world.declare()
    world.declare("other")
    await world.serving(production="org/Tiny-Base")
    async with client(world, "k-app") as app:
        told: list[tuple[object, str]] = []
        for name in ("other", "other/base", "nobody"):
            for ask in (
                app.chat.completions.create(model=name, messages=HELLO),
                app.models.retrieve(name),
            ):
                with pytest.raises(openai.NotFoundError) as caught:
                    await ask
                told.append((caught.value.code, str(caught.value).replace(repr(name), "")))
    assert told[0::2] == [told[0]] * 3
    assert told[1::2] == [told[1]] * 3
    assert "other" not in told[0][1].replace("or not for", "")


async def test_feedback_stays_within_a_callers_projects(make_world: Any, identity: Any):
    world = await make_world(**identity)
    world.declare("other")
    await world.gateway.reconciler.reconcile()
    async with await world.chat(model="other", headers=bearer("k-ops")) as response:
        completion_id = (await response.json())["id"]

    async def send(key: str, **body: Any) -> tuple[int, dict[str, Any]]:
        body = {"rating": "down", **body}
        url = f"{world.url}/v1/feedback"
        async with world.session.post(url, json=body, headers=bearer(key)) as response:
            return response.status, await response.json()

    told: list[str] = []
    for body in ({}, {"project": "other"}):
        status, answer = await send("k-app", completion_id=completion_id, **body)
        assert (status, answer["error"]["code"]) == (404, "completion_not_found")
        told.append(answer["error"]["message"])
    world.gateway._recent.forget(lambda _: True)
    assert (await send("k-app", completion_id=completion_id))[1]["error"]["message"] == told[0] == told[1]
    assert "other" not in told[0]
    assert (await send("k-send", completion_id=completion_id))[0] == 403
    assert world.broker.of("feedback.received") == []
    own = world.gateway._ids.new("desk")
    status, answer = await send("k-app", completion_id=own)
    assert (status, answer["project"]) == (202, "desk")
    await world.completions()
    assert (await send("k-ops", completion_id=completion_id, submitted_by="ann"))[1]["project"] == "other"
    said = [(event.submitted_by, event.principal.name) for event in world.broker.of("feedback.received")]
    assert said == [("app", "app"), ("ann", "ops")], "whom the application names, and whose key it sent"


async def test_a_caller_sees_the_state_of_its_projects_only(make_world: Any, identity: Any):
    world = await make_world(**identity)
    for project in ("desk", "other"):
        world.declare(project)
    world.engine.refuse_loads = True
    await world.desire("desk", production=("desk-1", 100))
    await world.desire("other", production=("other-1", 100))
    await until(lambda: len(world.gateway.reconciler.failures) == 2)
    seen = {}
    for key in ("k-ops", "k-app", "k-view", "k-send"):
        async with world.session.get(f"{world.url}/v1/status", headers=bearer(key)) as response:
            seen[key] = (response.status, await response.json())
    assert seen["k-send"][0] == 403
    everything, desk = seen["k-ops"][1], seen["k-app"][1]
    assert set(everything["failed_adapters"]) == {"desk-1", "other-1"}
    assert everything["engine"]["url"] == world.engine.url
    assert set(desk["failed_adapters"]) == {"desk-1"}
    assert set(desk["projects"]) == {"desk"}
    assert desk["engine"] == {"reachable": True}
    assert world.engine.url not in json.dumps(desk)
    assert seen["k-view"][1] == desk


async def test_a_gateway_that_starts_asks_who_calls_before_it_says_so(make_world: Any, identity: Any):
    world = await make_world(**identity)
    await world.gateway.close()
    body = {"model": "desk", "messages": HELLO}
    for method, path in (
        ("POST", "chat/completions"),
        ("POST", "feedback"),
        ("GET", "models"),
        ("GET", "models/desk"),
        ("GET", "status"),
    ):
        url = f"{world.url}/v1/{path}"
        for headers, expected in (({}, 401), (bearer("k-app"), 503)):
            async with world.session.request(method, url, json=body, headers=headers) as response:
                assert response.status == expected, path
                assert response.headers.get("retry-after") == ("2" if expected == 503 else None)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient
from tunewheel_contracts.event import new_event
from tunewheel_contracts.formats.run import BaseModelFacts
from tunewheel_contracts.identity import content_sha256
from tunewheel_registry.api import make_api
from tunewheel_registry.ledger import Ledger
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.settings import HttpSettings


class _Forgetful:
    def new(self, data: Any, *, cause: Any = None) -> Any:
        return new_event(data, source="/test", cause=cause)

    async def publish_many(self, envelopes: Any) -> None:
        return None


def ledger_of(desk: Any) -> Ledger:
    async def find_spec(project: str) -> Any:
        return desk.spec()

    async def nothing() -> None:
        return None

    async def anybody(*_: Any, **__: Any) -> None:
        return None

    return Ledger(_Forgetful(), find_spec, nothing, anybody)


def client_of(ledger: Ledger, desk: Any, settings: HttpSettings | None = None) -> TestClient:
    api = make_api(ledger, lambda project: desk.spec())
    guard(api.routes, Access(settings or HttpSettings(identity="open"), warn=print))
    return TestClient(api)


@pytest.fixture
async def ledger(desk: Any) -> Ledger:
    ledger = ledger_of(desk)
    for trigger in (desk.trained(1), desk.passed(1), desk.passed(2)):
        await ledger.handle(trigger)
    return ledger


@pytest.fixture
async def client(ledger: Ledger, desk: Any) -> TestClient:
    return client_of(ledger, desk)


async def test_models_are_listed_in_order_of_registration(client: TestClient, desk: Any):
    models = client.get("/v1/projects/desk/models").json()
    assert [(m["kind"], m["stage"]) for m in models] == [
        ("base", "registered"),
        ("adapter", "production"),
        ("adapter", "canary"),
    ]


async def test_a_base_model_tells_what_its_files_say(desk: Any):
    facts = BaseModelFacts(license="apache-2.0", context_length=8192, parameters=134_515_008)
    ledger = ledger_of(desk)
    await ledger.handle(desk.trained(1, base_facts=facts))
    await ledger.handle(desk.trained(2))  # a run of before the facts were told changes nothing
    base, *_ = client_of(ledger, desk).get("/v1/projects/desk/models").json()
    assert base["kind"] == "base"
    assert base["base"] == {"name": "org/Tiny-Base", "revision": f"sha256:{'0' * 64}"}
    assert base["base_facts"] == {
        "license": "apache-2.0", "chat_template_sha256": None, "context_length": 8192,
        "parameters": 134_515_008,
    }  # fmt: skip


async def test_a_base_model_of_unknown_facts_is_registered_under_the_same_id(desk: Any):
    told, untold = ledger_of(desk), ledger_of(desk)
    await told.handle(desk.trained(1, base_facts=BaseModelFacts(parameters=1)))
    await untold.handle(desk.trained(1))
    assert list(told.state("desk").models) == list(untold.state("desk").models)


async def test_a_model_tells_its_history_with_causes(client: TestClient, desk: Any):
    _, model, _ = client.get("/v1/projects/desk/models").json()
    assert [(s["stage"], s["cause"]) for s in model["history"]] == [
        ("registered", desk.trained(1).id),
        ("evaluated", desk.passed(1).id),
        ("production", desk.passed(1).id),
    ]
    assert all(step["at"] for step in model["history"])
    assert model["adapter"]["model_id"] == desk.model_id(1)


async def test_the_desired_state_is_told(client: TestClient, desk: Any):
    desired = client.get("/v1/projects/desk/desired").json()
    assert [r["percent"] for r in desired["desired"]["routes"]] == [80, 20]


@pytest.mark.parametrize(("declared", "said"), [(False, "not declared"), (True, "no registered model")])
async def test_a_project_without_models_has_no_desired_state_and_is_told_why(
    desk: Any, declared: bool, said: str
):
    api = make_api(ledger_of(desk), lambda project: desk.spec() if declared else None)
    guard(api.routes, Access(HttpSettings(identity="open"), warn=print))
    client = TestClient(api)
    assert client.get("/v1/projects/none/models").json() == []
    answer = client.get("/v1/projects/none/desired")
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (404, True)


async def test_whoever_may_not_read_a_project_is_not_told_whether_it_exists(
    ledger: Ledger, desk: Any, tmp_path: Path
):
    grants = {
        "reader": {"roles": ["viewer"], "projects": ["desk"]},
        "reviewer": {"roles": ["reviewer"]},
        "stranger": {"roles": ["viewer"], "projects": ["other"]},
        "sender": {"roles": ["publisher"]},
    }
    keys = {name: {"sha256": content_sha256(name.encode()), **grant} for name, grant in grants.items()}
    file = tmp_path / "keys.yaml"
    file.write_text(yaml.safe_dump({"keys": keys}))
    client = client_of(ledger, desk, HttpSettings(identity="required", api_keys_file=file))

    def status(project: str, name: str | None) -> int:
        headers = {"authorization": f"Bearer {name}"} if name else {}
        return client.get(f"/v1/projects/{project}/models", headers=headers).status_code

    assert status("desk", "reader") == status("desk", "reviewer") == 200
    for project in ("desk", "none", "x" * 64):
        assert status(project, "stranger") == status(project, "sender") == 403
        assert status(project, None) == 401
    assert status("x" * 64, "reviewer") == 422


def test_the_description_names_the_keys_and_the_refusals(client: TestClient):
    described = client.get("/openapi.json").json()
    assert described["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    routes = [route for path in described["paths"].values() for route in path.values()]
    assert len(routes) == 2
    for route in routes:
        assert {"200", "401", "403"} <= set(route["responses"])
        assert route["security"] == [{"HTTPBearer": []}]

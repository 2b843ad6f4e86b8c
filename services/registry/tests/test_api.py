from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient
from tunewheel_contracts.event import new_event
from tunewheel_contracts.formats.run import BaseModelFacts
from tunewheel_registry.api import make_api
from tunewheel_registry.ledger import Ledger


class _Forgetful:
    def new(self, data: Any, *, cause: Any = None) -> Any:
        return new_event(data, source="/test", cause=cause)

    async def publish(self, envelope: Any) -> None:
        return None


def ledger_of(desk: Any) -> Ledger:
    async def find_spec(project: str) -> Any:
        return desk.spec()

    async def nothing() -> None:
        return None

    return Ledger(_Forgetful(), find_spec, nothing)


@pytest.fixture
async def client(desk: Any) -> TestClient:
    ledger = ledger_of(desk)
    for trigger in (desk.trained(1), desk.passed(1), desk.passed(2)):
        await ledger.handle(trigger)
    return TestClient(make_api(ledger, lambda project: desk.spec()))


async def test_projects_are_summed_up(client: TestClient, desk: Any):
    assert client.get("/v1/projects").json() == [
        {
            "project": "desk",
            "champion": desk.model_id(1),
            "candidates": [desk.model_id(2)],
            "models": 3,
            "generation": 7,
        }
    ]


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
    base, *_ = TestClient(make_api(ledger, lambda _: desk.spec())).get("/v1/projects/desk/models").json()
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
    model = client.get(f"/v1/models/{desk.model_id(1)}").json()
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


@pytest.mark.parametrize(
    "path", ["/v1/projects/none/models", "/v1/projects/none/desired", "/v1/models/none-000000000000"]
)
async def test_the_unknown_is_404_and_says_where_to_look(client: TestClient, path: str):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "none" in answer.json()["detail"]

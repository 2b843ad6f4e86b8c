"""Questions that the console hands on to the registry."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.requests import Request
from tunewheel_console.control.registry import Registry
from tunewheel_runtime.refusals import Refused
from tunewheel_testing.adapters import BASE

KEY = {"authorization": "Bearer the-callers-own"}


@pytest.fixture(autouse=True)
def registered(state: Any, desk: Any) -> None:
    for n in (1, 2):
        names = {"model_id": f"desk-{n}0000000", "run_id": f"run-{n}", "dataset_id": f"ds-{n}"}
        state.apply(desk.say("model.registered", kind="adapter", base=BASE, adapter=desk.adapter(n), **names))


@pytest.mark.parametrize(
    ("asked", "handed_on"),
    [
        ("models/desk-10/card", "models/desk-10000000/card"),
        ("models/latest/comparison/desk-10", "models/desk-20000000/comparison/desk-10000000"),
        ("lineage/a%2Fb?records=5", "lineage/a%2Fb?records=5"),
    ],
)
async def test_the_registry_is_asked_as_the_caller(
    ask: Any, asked_of_registry: list[httpx.Request], asked: str, handed_on: str
):
    answer = await ask(f"/projects/desk/{asked}", headers=KEY, **({"records": 5} if "?" in asked else {}))
    assert answer.text == f"/v1/projects/desk/{handed_on}"
    assert asked_of_registry[0].headers["authorization"] == KEY["authorization"]


async def test_a_browsers_session_is_told_to_send_a_key(ask: Any, asked_of_registry: list[httpx.Request]):
    answer = await ask("/projects/desk/models/desk-10/card", headers={"cookie": "session=x"})
    assert answer.status_code == 401
    assert not asked_of_registry


async def test_a_registry_that_refuses_is_repeated(ask: Any, registry: Registry, monkeypatch: Any):
    refusal = {"error": {"message": "no", "type": "permission_error", "param": None, "code": "role_missing"}}
    transport = httpx.MockTransport(lambda _: httpx.Response(403, json=refusal))
    monkeypatch.setattr(
        registry, "_client", httpx.AsyncClient(transport=transport, base_url="http://registry")
    )
    answer = await ask("/projects/desk/lineage/run-1", headers=KEY)
    assert (answer.status_code, answer.json()) == (403, refusal)


async def test_a_registry_that_is_away_or_unnamed_is_told(ask: Any, registry: Registry, monkeypatch: Any):
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    client = httpx.AsyncClient(transport=httpx.MockTransport(away), base_url="http://registry")
    for made, words in ((client, "does not answer"), (None, "TUNEWHEEL_REGISTRY_URL")):
        monkeypatch.setattr(registry, "_client", made)
        answer = await ask("/projects/desk/lineage/run-1", headers=KEY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "away")
        assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["..", "."])
async def test_a_name_that_would_lead_to_another_route_is_refused(registry: Registry, name: str):
    request = Request({"type": "http", "headers": [(b"authorization", b"Bearer x")]})
    with pytest.raises(Refused) as refused:
        await registry.ask(request, "desk", "lineage", name)
    assert refused.value.status == 404

"""Questions that the console hands on to the registry."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.requests import Request
from tunewheel_console.control.models import ask as ask_registry
from tunewheel_console.control.neighbours import Neighbour
from tunewheel_console.sessions import Session, set_session
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.access import Credential
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


async def test_a_browsers_session_is_handed_on_as_a_pass_and_a_key_as_it_is():
    """A pass must not replace the key that a program sends, but what a proxy sends for itself is no key."""
    said: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        said.append(request.headers["authorization"])
        return httpx.Response(200, json={})

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://registry")
    asked = Neighbour("registry", client, lambda one, to: f"Pass {one.principal.name} {to}", setting="X")
    credential = Credential(principal=Principal(name="ann"))
    session = Session(session_id="s", credential=credential, csrf="c", expires_at=9e9)
    for sent in (None, b"Bearer k", b"Basic cHJveHk6eA==", b"Tunewheel-Pass another"):
        headers = [(b"cookie", b"x=y"), *([(b"authorization", sent)] if sent else [])]
        request = Request({"type": "http", "headers": headers})
        set_session(request.scope, session)
        await ask_registry(asked, request, "desk", "lineage", "run-1")
    assert said == ["Pass ann registry", "Bearer k", "Pass ann registry", "Pass ann registry"]


async def test_a_registry_that_refuses_is_repeated(ask: Any, registry: Neighbour, monkeypatch: Any):
    refusal = {"error": {"message": "no", "type": "permission_error", "param": None, "code": "role_missing"}}
    transport = httpx.MockTransport(lambda _: httpx.Response(403, json=refusal))
    client = httpx.AsyncClient(transport=transport, base_url="http://registry")
    monkeypatch.setattr(registry, "client", client)
    answer = await ask("/projects/desk/lineage/run-1", headers=KEY)
    assert (answer.status_code, answer.json()) == (403, refusal)


async def test_a_registry_that_is_away_or_unnamed_is_told(ask: Any, registry: Neighbour, monkeypatch: Any):
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    client = httpx.AsyncClient(transport=httpx.MockTransport(away), base_url="http://registry")
    for made, words in ((client, "does not answer"), (None, "TUNEWHEEL_REGISTRY_URL")):
        monkeypatch.setattr(registry, "client", made)
        answer = await ask("/projects/desk/lineage/run-1", headers=KEY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "away")
        assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["..", "."])
async def test_a_name_that_would_lead_to_another_route_is_refused(registry: Neighbour, name: str):
    request = Request({"type": "http", "headers": [(b"authorization", b"Bearer x")]})
    with pytest.raises(Refused) as refused:
        await ask_registry(registry, request, "desk", "lineage", name)
    assert refused.value.status == 404

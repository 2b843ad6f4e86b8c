"""What the project's model is not sure of is answered by the endpoint that its spec names."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from tunewheel_contracts.event import new_event
from tunewheel_contracts.formats.confidence import Certainty
from tunewheel_serve_gateway.abstaining import REFUSAL
from tunewheel_serve_gateway.completions.kept import kept_as
from tunewheel_testing.adapters import bundle_of
from tunewheel_testing.engine import FakeEngine
from tunewheel_testing.waiting import until

SHAPES: Any = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
KEY = "TUNEWHEEL_FALLBACK_KEY"
HOSTS = f"huggingface.co,127.0.0.1={KEY}"
LARGE = "large-1"
BOOM = (500, {"error": {"message": "boom"}}, {})


@pytest.fixture
async def outside(monkeypatch: Any) -> Any:
    """An engine that is none of the gateway's, and asks for a key."""
    monkeypatch.setenv(KEY, "s3cret")
    engine = FakeEngine(LARGE)
    engine.api_key = "s3cret"
    await engine.start()
    yield engine
    await engine.stop()


async def falling_back(
    make_world: Any,
    outside: FakeEngine,
    *,
    least: float = 0.99,
    roles: dict[str, Any] | None = None,
    named: dict[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """Return a world whose models are never as sure as they are judged to have to be."""
    world = await make_world(**{"spec_hosts": HOSTS, **settings})
    endpoint = {"base_url": f"{outside.url}/v1", "model": LARGE, "api_key_env": KEY, **(named or {})}
    abstain = {"risk": 0.05, "to": "endpoint", "endpoint": endpoint, "reply": "Bitte fragen Sie jemanden."}
    world.declare(task={"label_field": "said"}, serving={"abstain": abstain})
    bundle = bundle_of(certainty=Certainty(intercept=0.0, slope=1.0, least=least, label_field="said"))
    roles = roles or {"production": ("desk-1", 100)}
    await world.desire(**roles, judged={model: bundle for model, _ in roles.values()})
    await world.serving(**{role: model for role, (model, _) in roles.items()})
    return world


async def asked(
    world: Any, *, stream: bool, text: str = "hi", **body: Any
) -> tuple[Any, dict[str, Any], str]:
    """Return the headers, the message, and the model of an answer."""
    form = {"response_format": {"type": "json_object"}, "stream": stream, **body}
    async with await world.chat(text, **form) as response:
        raw = await response.text()
        assert response.status == 200, raw
    if not stream:
        whole = json.loads(raw)
        return response.headers, whole["choices"][0]["message"], whole["model"]
    chunks = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: {")]
    deltas = [one["choices"][0]["delta"] for one in chunks if one.get("choices")]
    said = {name: "".join(d.get(name) or "" for d in deltas) or None for name in ("content", "refusal")}
    (model,) = {one["model"] for one in chunks}
    return response.headers, said, model


@SHAPES
async def test_the_endpoint_answers_and_the_log_tells_both(
    make_world: Any, outside: FakeEngine, stream: bool
):
    world = await falling_back(make_world, outside)
    headers, said, model = await asked(world, stream=stream, user="u-1")
    assert (said["content"], said.get("refusal"), model) == ('{"said": "hi"}', None, LARGE)
    assert (headers["x-tunewheel-model"], headers["x-tunewheel-role"]) == (LARGE, "fallback")
    assert "x-tunewheel-abstained" not in headers
    (sent,) = outside.asked
    assert sent["messages"] == world.engine.asked[-1]["messages"]
    assert sent["messages"][0]["role"] == "system"
    assert (sent["model"], "logprobs" in sent, "repetition_penalty" in sent) == (LARGE, False, False)
    done = {one.model_id: one for one in await world.completions(2)}
    own, other = done["desk-1"], done[LARGE]
    assert (own.abstained, own.output, own.answered_by) == (True, "", other.completion_id)
    assert (other.overrides, other.pinned) == (("fallback", "response_format"), True)
    assert other.output == '{"said": "hi"}'
    assert {kept_as(new_event(one, source="/t")).about for one in (own, other)} == {other.completion_id}
    assert (other.customer, other.confidence, other.certainty) == ("u-1", None, None)
    assert headers.get("x-tunewheel-confidence") is None
    assert not any(text for name, text in world.warnings.items() if name.startswith("fallback"))


async def test_an_answer_of_which_the_model_is_sure_goes_to_nobody_else(make_world: Any, outside: FakeEngine):
    world = await falling_back(make_world, outside, least=0.1)
    assert (await asked(world, stream=False))[2] == "desk-1"
    assert outside.asked == []


async def _away(outside: FakeEngine) -> None:
    await outside.stop()


async def _broken(outside: FakeEngine) -> None:
    outside.fail_with = BOOM


async def _refusing(outside: FakeEngine) -> None:
    outside.fail_with = (400, {"error": {"message": "too long", "code": "context_length_exceeded"}}, {})


async def _locked(outside: FakeEngine) -> None:
    outside.api_key = "another"


async def _silent(outside: FakeEngine) -> None:
    outside.silent.add("/v1/chat/completions")


@SHAPES
@pytest.mark.parametrize("fail", [_away, _broken, _refusing, _locked, _silent])
async def test_a_question_that_the_endpoint_does_not_answer_gets_the_reply(
    make_world: Any, outside: FakeEngine, stream: bool, fail: Any
):
    world = await falling_back(make_world, outside, named={"timeout_seconds": 1})
    await fail(outside)
    headers, said, model = await asked(world, stream=stream)
    assert (said["content"], said["refusal"]) == (None, "Bitte fragen Sie jemanden.")
    assert (model, headers["x-tunewheel-abstained"]) == ("desk-1", "true")
    done = {one.model_id: one for one in await world.completions(2)}
    own, other = done["desk-1"], done[LARGE]
    assert (own.abstained, own.answered_by) == (True, None)
    assert (other.fault, other.overrides[0], other.pinned) == ("engine", "fallback", True)
    assert other.error
    assert outside.url in (world.warnings["fallback desk"] or "")
    assert "s3cret" not in str(world.warnings)
    if fail is _locked:
        assert KEY in (world.warnings["fallback desk"] or "")
        outside.api_key = "s3cret"
        assert (await asked(world, stream=stream))[2] == LARGE
        assert world.warnings["fallback desk"] is None


@pytest.mark.parametrize(
    ("hosts", "named", "why"),
    [
        ("huggingface.co", {}, "127.0.0.1 is not a host"),
        ("127.0.0.1", {}, f"{KEY} must not go"),
        ("127.0.0.1=TUNEWHEEL_FALLBACK_B", {"api_key_env": "TUNEWHEEL_FALLBACK_B"}, "is not set"),
    ],
)
async def test_an_endpoint_that_the_operator_does_not_allow_is_never_asked(
    make_world: Any, outside: FakeEngine, hosts: str, named: dict[str, Any], why: str
):
    world = await falling_back(make_world, outside, spec_hosts=hosts, named=named)
    _, said, model = await asked(world, stream=False)
    assert (said["content"], model) == (None, "desk-1")
    assert outside.asked == []
    assert why in (world.warnings["fallback desk"] or "")
    (event,) = await world.completions()
    assert (event.abstained, event.answered_by) == (True, None)


@pytest.mark.parametrize("model", ["desk/champion", "desk-1"])
async def test_a_client_that_asks_for_one_model_gets_no_other(
    make_world: Any, outside: FakeEngine, model: str
):
    world = await falling_back(make_world, outside)
    _, said, answered = await asked(world, stream=False, model=model)
    assert (said["content"], answered, outside.asked) == (None, "desk-1", [])


async def test_the_endpoint_answers_what_a_candidate_is_not_sure_of(make_world: Any, outside: FakeEngine):
    roles = {"production": ("desk-1", 0), "canary": ("desk-2", 100)}
    world = await falling_back(make_world, outside, roles=roles)
    assert (await asked(world, stream=True))[2] == LARGE
    done = {one.model_id: one for one in await world.completions(2)}
    assert (done["desk-2"].role, done["desk-2"].abstained) == ("canary", True)
    assert (done[LARGE].role, done[LARGE].pinned) == ("production", True)


async def test_a_stream_of_the_endpoint_that_breaks_off_becomes_a_question_for_a_label(
    make_world: Any, outside: FakeEngine
):
    world = await falling_back(make_world, outside)
    outside.break_off_after = 1
    async with await world.chat("a b c d", stream=True, response_format={"type": "json_object"}) as response:
        assert '"error"' in await response.text()
    done = {one.model_id: one for one in await world.completions(2)}
    assert (done["desk-1"].abstained, done["desk-1"].answered_by) == (True, None)
    assert done[LARGE].error


@SHAPES
async def test_a_client_that_leaves_meanwhile_leaves_both_on_the_log(
    make_world: Any, outside: FakeEngine, stream: bool
):
    world = await falling_back(make_world, outside, heartbeat_seconds=0)
    outside.gate.clear()
    asking = asyncio.create_task(asked(world, stream=stream))
    await until(lambda: outside.running == 1)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    done = {one.model_id: one for one in await world.completions(2)}
    assert (done["desk-1"].abstained, done["desk-1"].answered_by) == (True, None)
    assert done[LARGE].cancelled


async def test_no_copy_of_the_endpoints_answer_goes_to_a_shadow(make_world: Any, outside: FakeEngine):
    roles = {"production": ("desk-1", 100), "shadow": ("desk-2", 100)}
    world = await falling_back(make_world, outside, roles=roles)
    assert (await asked(world, stream=False))[2] == LARGE
    assert len(await world.completions(2)) == 2
    assert not world.gateway._outcomes._copies


async def test_the_tokens_of_both_models_are_charged(make_world: Any, outside: FakeEngine):
    world = await falling_back(make_world, outside)
    used: list[int] = []
    settle = world.gateway.admission.settle

    async def watch(admitted: Any) -> None:
        used.append(admitted.used)
        await settle(admitted)

    world.gateway.admission.settle = watch
    await asked(world, stream=False)
    done = await world.completions(2)
    assert used == [sum(one.prompt_tokens + one.completion_tokens for one in done)]


async def test_the_default_reply_is_a_sentence(make_world: Any, outside: FakeEngine):
    world = await falling_back(make_world, outside)
    await outside.stop()
    abstain = {"risk": 0.05, "to": "people"}
    world.declare(task={"label_field": "said"}, serving={"abstain": abstain})
    assert (await asked(world, stream=False))[1]["refusal"] == REFUSAL


@SHAPES
async def test_an_endpoint_that_drips_is_given_up_in_time(make_world: Any, stream: bool):
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9999999\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b":\n" if stream else b" ")
                await writer.drain()
                await asyncio.sleep(0.02)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    dripping: Any = FakeEngine(LARGE)
    dripping.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    named = {"timeout_seconds": 1, "api_key_env": None}
    world = await falling_back(make_world, dripping, named=named)
    async with asyncio.timeout(120):
        assert (await asked(world, stream=stream))[1]["refusal"] == "Bitte fragen Sie jemanden."
    server.close()


async def test_one_connection_pool_is_kept_for_a_project_however_often_its_endpoint_changes(
    make_world: Any, outside: FakeEngine
):
    world = await falling_back(make_world, outside)
    for seconds in (30, 40, 50):
        endpoint = {"base_url": f"{outside.url}/v1", "model": LARGE, "api_key_env": KEY}
        abstain = {"risk": 0.05, "to": "endpoint", "endpoint": endpoint | {"timeout_seconds": seconds}}
        world.declare(task={"label_field": "said"}, serving={"abstain": abstain})
        assert (await asked(world, stream=False))[2] == LARGE
    assert len(world.gateway._fallbacks._pools) == 1

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.upstream import ErasureRequested, FeedbackReceived
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.roles import Caller, Grant, Role
from tunewheel_serve_gateway.errors import ApiError
from tunewheel_serve_gateway.feedback import as_allowed, join, parse_feedback
from tunewheel_testing.log import wrap
from tunewheel_testing.specs import spec_of
from tunewheel_testing.waiting import until

EXPERT = Caller(Principal(name="lead"), (Grant(frozenset({Role.APPLICATION, Role.EXPERT})),))
APP = Caller(Principal(name="app"), (Grant(frozenset({Role.APPLICATION}), frozenset({"desk"})),))
MAIL = "ann@example.org"
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text()})
ID = st.sampled_from(["chatcmpl-old", "c-7", "eve"]) | st.text("a\n\x00 /é", max_size=3)
BODY = st.fixed_dictionaries(
    {
        "completion_id": ID,
        "rating": st.sampled_from(["up", "down"]),
    },
    optional={
        "correction": st.text() | st.dictionaries(st.text(), ANYTHING, max_size=3),
        "comment": st.text(),
        "submitted_by": ID,
        "customer": ID,
        "project": st.sampled_from(["desk", "other"]),
        "model_id": ID,
        "messages": st.lists(TURN, max_size=3),
        "output": st.text(),
    },
)


async def send(world: Any, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    async with world.session.post(f"{world.url}/v1/feedback", json=body, headers=headers) as response:
        return response.status, await response.json()


async def completion(world: Any) -> str:
    async with await world.chat("where is my bike?") as response:
        return (await response.json())["id"]


async def test_feedback_is_joined_with_its_completion(world: Any):
    completion_id = await completion(world)
    correction = {"category": "delivery", "reply": "On its way."}
    status, answer = await send(
        world,
        {"completion_id": completion_id, "rating": "down", "correction": correction, "submitted_by": "ann"},
    )
    assert status == 202
    (event,) = world.broker.of("feedback.received")
    assert event.feedback_id == answer["feedback_id"]
    assert (event.project, event.completion_id, event.model_id) == ("desk", completion_id, "desk-1")
    assert event.output == "desk-1: where is my bike?"
    assert [m.role for m in event.messages] == ["system", "user"]
    assert event.correction == correction
    assert event.submitted_by == "ann"


async def test_feedback_says_what_the_client_had_replaced(world: Any):
    own = [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "where is my bike?"}]
    for replaced, told in (({}, ()), ({"messages": own}, ("system_prompt",))):
        async with await world.chat("where is my bike?", **replaced) as response:
            name = (await response.json())["id"]
        await send(world, {"completion_id": name, "rating": "down"})
        assert world.broker.of("feedback.received")[-1].overrides == told


@pytest.mark.parametrize(("model", "pinned"), [("desk", False), ("desk/champion", True)])
async def test_feedback_says_whether_a_rollout_compares_the_answer(world: Any, model: str, pinned: bool):
    async with await world.chat(model=model) as response:
        name = (await response.json())["id"]
    await send(world, {"completion_id": name, "rating": "down"})
    assert world.broker.of("feedback.received")[-1].pinned is pinned


@pytest.mark.parametrize(
    ("user", "told", "customer"),
    [("c-7", {}, "c-7"), ("c-7", {"customer": "c-8"}, "c-8"), ("x" * 300, {}, None), (None, {}, None)],
)
async def test_feedback_says_whose_request_it_is_about(world: Any, user: Any, told: Any, customer: Any):
    async with await world.chat("where is my bike?", user=user) as response:
        completion_id = (await response.json())["id"]
    assert (await send(world, {"completion_id": completion_id, "rating": "up", **told}))[0] == 202
    assert world.broker.of("feedback.received")[0].customer == customer


async def test_a_streamed_completion_can_be_rated_too(world: Any):
    async with await world.chat(stream=True) as response:
        text = await response.text()
    completion_id = text.split('"id":"')[1].split('"')[0]
    assert (await send(world, {"completion_id": completion_id, "rating": "up"}))[0] == 202
    assert world.broker.of("feedback.received")[0].output == "desk-1: hello"


async def test_the_same_feedback_twice_is_one_event(world: Any):
    body = {"completion_id": await completion(world), "rating": "up"}
    first, second = await send(world, body), await send(world, body)
    assert first == second
    assert len({e.id for e in world.broker.events if e.data.type == "feedback.received"}) == 1


async def test_a_completion_of_another_gateway_is_found_on_the_log(world: Any, make_world: Any):
    other = await make_world(beside=world, log=world.log)
    other.broker.peers = [world.broker]
    completion_id = await completion(world)
    await world.completions()
    body = {"completion_id": completion_id, "rating": "down", "correction": "No."}
    assert (await send(other, body))[0] == 202
    (event,) = other.broker.of("feedback.received")
    assert event.output == "desk-1: where is my bike?"
    assert (event.model_id, event.messages[-1].content) == ("desk-1", "where is my bike?")


async def test_a_completion_missing_on_the_log_can_be_rated_and_corrected_with_messages(
    world: Any, make_world: Any
):
    other = await make_world(beside=world, log=world.log)
    body = {"completion_id": await completion(world), "rating": "down"}
    assert (await send(other, body))[0] == 202
    body["correction"] = "No."
    status, answer = await send(other, body)
    assert (status, answer["error"]["param"]) == (422, "messages")
    assert "send the conversation in 'messages'" in answer["error"]["message"]
    asked = [{"role": "user", "content": "open on sundays?"}]
    assert (await send(other, body | {"messages": asked}))[0] == 202
    rated, corrected = other.broker.of("feedback.received")
    assert (rated.project, rated.model_id, rated.messages) == ("desk", None, ())
    assert corrected.messages[0].content == "open on sundays?"


async def test_the_logged_conversation_counts_whatever_the_sender_says(world: Any):
    body = {"completion_id": await completion(world), "rating": "down", "correction": "No."}
    invented = {
        "messages": [{"role": "user", "content": "another"}],
        "output": "another",
        "model_id": "desk-9",
    }
    assert (await send(world, body | invented))[0] == 202
    (event,) = world.broker.of("feedback.received")
    assert (event.messages[-1].content, event.model_id) == ("where is my bike?", "desk-1")


async def test_an_id_that_no_gateway_gave_cannot_be_rated(world: Any, make_world: Any):
    stranger = await make_world(completion_secret="of another installation")
    stranger.declare()
    await stranger.serving(production="org/Tiny-Base")
    real = await completion(world)
    invented = real[:-1] + ("0" if real[-1] != "0" else "1")
    for name in (invented, await completion(stranger), "chatcmpl-old", real.upper()):
        body = {"completion_id": name, "rating": "down", "project": "desk", "correction": "No."}
        asked = [{"role": "user", "content": "open on sundays?"}]
        status, answer = await send(world, body | {"messages": asked})
        assert (status, answer["error"]["code"]) == (404, "completion_not_found")
    assert world.broker.of("feedback.received") == []


async def test_a_restart_forgets_no_completion(world: Any):
    completion_id = await completion(world)
    await world.gateway.close()
    await world.gateway.start()
    world.gateway._recent.forget(lambda _: True)
    assert (await send(world, {"completion_id": completion_id, "rating": "down", "correction": "No."}))[
        0
    ] == 202
    status, answer = await send(world, {"completion_id": completion_id, "rating": "up", "project": "other"})
    assert (status, answer["error"]["param"]) == (422, "project")


async def test_feedback_does_not_bring_an_erased_completion_back_from_the_log(world: Any):
    async with await world.chat("where is my bike?", user="C-7") as response:
        completion_id = (await response.json())["id"]
    await world.completions()
    asked = {"project": "desk", "erasure_id": "letter-1", "customer": "C-7", "requested_by": "privacy"}
    world.gateway.on_erasure_requested(wrap(ErasureRequested.model_validate(asked)))
    body = {"completion_id": completion_id, "rating": "down", "correction": "No."}
    assert (await send(world, body))[1]["error"]["param"] == "messages"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"rating": "up"}, "completion_id"),
        ({"completion_id": "x"}, "rating"),
        ({"completion_id": "x", "rating": "great"}, "rating"),
        ({"completion_id": "x", "rating": "up", "coment": "typo"}, "coment"),
        ({"completion_id": "x\n", "rating": "up"}, "completion_id"),
        ({"completion_id": "x", "rating": "up", "project": "../x"}, "project"),
        ({"completion_id": "x", "rating": "up", "principal": {"name": "boss"}}, "principal"),
        ([], "(body)"),
    ],
)
async def test_wrong_feedback_names_the_field(world: Any, body: Any, param: str):
    status, answer = await send(world, body)
    assert (status, answer["error"]["param"]) == (400, param)


async def test_feedback_is_not_accepted_before_the_broker_has_it(world: Any):
    completion_id = await completion(world)
    world.broker.away = True
    status, answer = await send(world, {"completion_id": completion_id, "rating": "up"})
    assert status == 503
    assert "send it again" in answer["error"]["message"]
    world.broker.away = False
    assert (await send(world, {"completion_id": completion_id, "rating": "up"}))[0] == 202


@pytest.mark.parametrize(("policy", "found"), [("redacted", True), ("hashed", False), ("off", False)])
async def test_a_correction_brings_the_conversation_that_the_project_does_not_log(
    make_world: Any, policy: str, found: bool
):
    world = await make_world()
    world.declare(serving={"log": policy})
    await world.serving(production="org/Tiny-Base")
    async with await world.chat("I am ann@example.org") as response:
        body = {"completion_id": (await response.json())["id"], "rating": "down", "correction": "No."}
    await until(lambda: len(world.gateway._recent) == 1)  # the first redaction imports what it needs
    status, answer = await send(world, body)
    assert (status == 202) is found, answer
    asked = [{"role": "user", "content": "who am I?"}]
    rating = {"completion_id": body["completion_id"], "rating": "up", "messages": asked, "output": "Ann"}
    assert (await send(world, rating))[0] == 202
    rated = world.broker.of("feedback.received")[-1]
    assert (bool(rated.messages), rated.output != "Ann") == (found, True)
    assert (await send(world, body | {"messages": asked}))[0] == 202
    event = world.broker.of("feedback.received")[-1]
    assert event.messages[-1].content == ("I am <EMAIL_ADDRESS>" if found else "who am I?")
    assert event.model_id == "org/Tiny-Base"


def allowed(policy: str | None, **body: Any) -> FeedbackReceived:
    """Return what is published of feedback on a completion that is not on the log (yet)."""
    said = {
        "completion_id": "c-1",
        "rating": "down",
        "messages": [{"role": "user", "content": f"I am {MAIL}"}],
        "output": f"Hello {MAIL}",
        "comment": f"ask {MAIL}",
    }
    data = join(parse_feedback(json.dumps(said | body).encode()), "desk", None, APP)
    return as_allowed(data, None if policy is None else spec_of("desk", serving={"log": policy}))


@pytest.mark.parametrize("policy", ["off", "hashed", None])
def test_a_rating_brings_no_conversation_that_the_project_does_not_log(policy: str | None):
    rated = allowed(policy)
    assert (rated.messages, rated.output, rated.rating) == ((), None, "down")
    corrected = allowed(policy, correction="No.")
    assert corrected.messages[0].content == f"I am {MAIL}"
    assert allowed("full").output == f"Hello {MAIL}"


@pytest.mark.parametrize(
    ("correction", "clean"),
    [
        ({"reply": f"Card\n{MAIL}", "n": 1}, {"reply": "Card\n<EMAIL_ADDRESS>", "n": 1}),
        (f"Hi {MAIL}", "Hi <EMAIL_ADDRESS>"),
        (None, None),
    ],
)
def test_feedback_is_redacted_if_the_project_logs_redacted_texts(correction: Any, clean: Any):
    said = allowed("redacted", correction=correction)
    assert MAIL not in said.model_dump_json()
    assert said.messages[0].content == "I am <EMAIL_ADDRESS>"
    assert (said.correction, said.comment) == (clean, "ask <EMAIL_ADDRESS>")


def test_if_redaction_fails_a_rating_loses_its_texts_and_a_correction_is_refused():
    declared = spec_of("desk", serving={"log": "redacted"})
    pii = declared.dataset.pii.model_copy(update={"entities": ("NO_SUCH",)})
    declared = declared.model_copy(update={"dataset": declared.dataset.model_copy(update={"pii": pii})})
    rated = as_allowed(allowed("full"), declared)
    assert (rated.rating, rated.messages, rated.output, rated.comment) == ("down", (), None, None)
    with pytest.raises(ApiError, match=r"correct the project's dataset\.pii"):
        as_allowed(allowed("full", correction="No."), declared)


@given(st.one_of(BODY, BODY, BODY, ANYTHING).map(json.dumps).map(str.encode) | st.binary(max_size=40))
@example(b'{"completion_id": "c", "rating": "up", "project": "desk", "comment": "\\ud800"}')
@example(b"[" * 100_000)
def test_any_body_is_refused_by_name_or_an_event_that_the_log_takes(raw: bytes):
    told = joined(raw)
    if isinstance(told, ApiError):
        assert told.param
        return
    assert told.principal == Principal(name="app"), "whoever the body says sent it"
    record = new_event(told, source="/test").to_kafka()
    assert Envelope.from_kafka(FeedbackReceived, record.value, record.headers).data == told


def joined(raw: bytes) -> FeedbackReceived | ApiError:
    try:
        return join(parse_feedback(raw), "desk", None, APP)
    except ApiError as error:
        return error


def test_an_applications_feedback_grants_a_correction_and_an_experts_more() -> None:
    body = parse_feedback(b'{"completion_id": "c-1", "rating": "up"}')
    assert join(body, "desk", None, APP).authority == "corrected"
    assert join(body, "desk", None, EXPERT).authority == "expert"

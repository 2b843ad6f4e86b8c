"""Tunewheel's own Python client, asynchronous and synchronous, at a real gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tunewheel_client import AsyncClient, Away, Client, NotFound, Refused
from tunewheel_contracts.formats.confidence import Certainty
from tunewheel_testing.adapters import bundle_of
from tunewheel_testing.waiting import until

Call = Callable[..., Awaitable[Any]]
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(params=["async", "sync"])
async def call(request: pytest.FixtureRequest, world: Any) -> Call:
    """Call a method of a client by its name; the synchronous one in a thread, as the gateway is in this
    one."""

    async def call(name: str, *arguments: Any, **options: Any) -> Any:
        if request.param == "async":
            async with AsyncClient(NOWHERE, "k", gateway=world.url) as client:
                return await getattr(client, name)(*arguments, **options)
        with Client(NOWHERE, "k", gateway=world.url) as client:
            return await asyncio.to_thread(getattr(client, name), *arguments, **options)

    return call


async def test_a_question_is_answered_by_the_model_in_production(world: Any, call: Call):
    answer = await call("ask", "desk", "where is my bike?", temperature=0.0)
    assert (answer.text, str(answer)) == ("desk-1: where is my bike?",) * 2
    assert answer.model == "desk-1"
    assert answer.usage["total_tokens"] > 0
    assert world.engine.asked[-1]["temperature"] == 0.0


async def test_a_conversation_and_another_model_may_be_named(world: Any, call: Call):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
    answer = await call("ask", "desk", [*turns, {"role": "user", "content": "my bike?"}], model="base")
    assert answer.text.endswith("my bike?")
    assert answer.model != "desk-1"
    assert len(world.engine.asked[-1]["messages"]) == 4


async def test_a_withheld_answer_says_why_and_how_sure_the_model_was(world: Any, call: Call):
    world.declare(task={"label_field": "said"}, serving={"abstain": {"risk": 0.05}})
    sure = Certainty(intercept=0.0, slope=1.0, least=0.99)
    await world.desire(production=("desk-1", 100), judged={"desk-1": bundle_of(certainty=sure)})
    await until(lambda: world.gateway.table.projects["desk"].production.bundle is not None, "the bundle")
    answer = await call("ask", "desk", "hi", response_format={"type": "json_object"})
    assert (answer.text, answer.confidence) == ("", 0.607)
    assert "not sure" in answer.refusal


async def test_feedback_names_the_answer(world: Any, call: Call):
    answer = await call("ask", "desk", "where is my bike?")
    correction = {"category": "delivery"}
    receipts = [
        await call("feedback", answer.completion_id, "down", correction=correction, submitted_by="ann")
        for _ in range(2)
    ]
    events = world.broker.of("feedback.received")
    assert {event.feedback_id for event in events} == {receipts[0].feedback_id} == {receipts[1].feedback_id}
    assert (events[0].correction, events[0].submitted_by, receipts[0].project) == (correction, "ann", "desk")


async def test_errors_are_named_by_what_to_do(world: Any, call: Call):
    with pytest.raises(NotFound) as error:
        await call("ask", "shop", "where?")
    assert (error.value.status, error.value.param) == (404, "model")
    with pytest.raises(Refused) as error:
        await call("ask", "desk", "where?", no_such=1)
    assert (error.value.status, error.value.param, error.value.code) == (400, "no_such", "unknown_parameter")
    with pytest.raises(NotFound) as error:
        await call("feedback", "c-nobody", "up")
    assert error.value.code == "completion_not_found"


async def test_a_gateway_that_does_not_answer_is_away():
    async with AsyncClient(NOWHERE, "k", gateway=NOWHERE) as client:
        with pytest.raises(Away, match="nothing answers at"):
            await client.ask("desk", "where?")

"""Formats, functions, several answers and log probabilities, as the official client speaks them."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

pytestmark = [pytest.mark.e2e, pytest.mark.nightly("models")]

TICKET = [{"role": "user", "content": "My charger is dead. Answer with JSON: category, urgent."}]


class Ticket(BaseModel):
    category: Literal["billing", "charger", "delivery"]
    urgent: bool


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"day": {"enum": ["today", "tomorrow"]}},
            "required": ["day"],
            "additionalProperties": False,
        },
    },
}


async def test_the_client_parses_what_it_asked_for(client: AsyncOpenAI, engine) -> None:
    answer = await client.chat.completions.parse(
        model=engine.model, messages=TICKET, response_format=Ticket, temperature=1, seed=1, n=2
    )
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "stop"]
    assert all(isinstance(choice.message.parsed, Ticket) for choice in answer.choices)


@pytest.mark.usefixtures("only_ours")  # vLLM reads calls under `auto` only where its command says how
async def test_a_function_that_must_be_called_is_called(client: AsyncOpenAI, engine) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    common: Any = {"model": engine.model, "messages": TICKET, "tools": [WEATHER], "tool_choice": named}
    answer = await client.chat.completions.create(**common, temperature=0)
    [call] = answer.choices[0].message.tool_calls or []
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["day"] in ("today", "tomorrow")
    told = [
        *TICKET,
        answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    after = await client.chat.completions.create(
        model=engine.model, messages=told, tools=[WEATHER], temperature=0, max_tokens=4
    )
    assert after.usage.prompt_tokens > answer.usage.prompt_tokens


@pytest.mark.usefixtures("only_ours")
async def test_nothing_of_it_depends_on_neighbours(client: AsyncOpenAI, engine) -> None:
    schema = {"name": "ticket", "schema": Ticket.model_json_schema()}
    asked: list[dict[str, Any]] = [
        {"response_format": {"type": "json_schema", "json_schema": schema}, "temperature": 1, "seed": 3},
        {"n": 2, "temperature": 0.8, "seed": 4, "extra_body": {"min_p": 0.05}},
        {"temperature": 0, "presence_penalty": 1, "frequency_penalty": 0.5, "logit_bias": {"28": 2}},
        {"tools": [WEATHER], "tool_choice": "required", "temperature": 1, "seed": 5,
         "parallel_tool_calls": False},
    ]  # fmt: skip

    async def say(one: dict[str, Any]) -> list[Any]:
        answer = await client.chat.completions.create(
            model=engine.model, messages=TICKET, max_tokens=24, logprobs=True, **one
        )
        return [[entry.token for entry in choice.logprobs.content] for choice in answer.choices]

    alone = [await say(one) for one in asked]
    assert await asyncio.gather(*(say(one) for one in asked)) == alone

"""The features of openai-agents; ``report`` prints which work. It uses ``/v1/responses`` by default."""

from __future__ import annotations

import asyncio

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from pydantic import BaseModel
from report import report

set_tracing_disabled(True)


class Said(BaseModel):
    said: str


@function_tool
def find_order(order: str) -> str:
    """Say where an order is."""
    return f"{order} is in Bremen"


def agent(**options: object) -> Agent:
    return Agent(name="desk", instructions="Be brief.", **{"model": "desk", **options})


def chat() -> bool:
    by_chat = OpenAIChatCompletionsModel(model="desk", openai_client=AsyncOpenAI(max_retries=0))
    return Runner.run_sync(agent(model=by_chat), "hello").final_output == "desk-1: hello"


def tools() -> bool:
    answered = Runner.run_sync(agent(tools=[find_order]), "hello").final_output
    return answered == "desk-1: hello is in Bremen"


def schema() -> bool:
    return Runner.run_sync(agent(output_type=Said), "hello").final_output == Said(said="hello")


def responses() -> bool:
    return Runner.run_sync(agent(), "hello").final_output == "desk-1: hello"


def responses_stream() -> bool:
    async def answered() -> bool:
        running = Runner.run_streamed(agent(), "hello")
        kinds = [event.type async for event in running.stream_events()]
        return "raw_response_event" in kinds and running.final_output == "desk-1: hello"

    # The client keeps what belongs to the loop in which run_sync ran.
    return asyncio.get_event_loop_policy().get_event_loop().run_until_complete(answered())


report(chat, tools, schema, responses, responses_stream)

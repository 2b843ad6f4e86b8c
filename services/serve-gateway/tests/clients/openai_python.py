"""The features of OpenAI's client for Python, one after another; ``report`` prints which work."""

from __future__ import annotations

import json
from typing import Any

import openai
from pydantic import BaseModel
from report import TOOL, report

client = openai.OpenAI(max_retries=0)
HELLO: Any = [{"role": "user", "content": "hello"}]


class Said(BaseModel):
    said: str


def chat() -> bool:
    answer = client.chat.completions.create(model="desk", messages=HELLO)
    return answer.choices[0].message.content == "desk-1: hello"


def stream() -> bool:
    chunks = client.chat.completions.create(model="desk", messages=HELLO, stream=True)
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "desk-1: hello"


def tools() -> bool:
    function: Any = {name: value for name, value in TOOL.items() if name != "type"}
    tool: Any = {"type": "function", "function": function}
    answer = client.chat.completions.create(model="desk", messages=HELLO, tools=[tool])
    (call,) = answer.choices[0].message.tool_calls or ()
    return json.loads(call.function.arguments) == {"order": "hello"}


def schema() -> bool:
    answer = client.chat.completions.parse(model="desk", messages=HELLO, response_format=Said)
    return answer.choices[0].message.parsed == Said(said="hello")


def responses() -> bool:
    return client.responses.create(model="desk", input="hello").output_text == "desk-1: hello"


def responses_stream() -> bool:
    with client.responses.stream(model="desk", input="hello", text_format=Said) as events:
        return events.get_final_response().output_parsed == Said(said="hello")


def prompts() -> bool:
    return client.completions.create(model="desk", prompt="hello").choices[0].text == "desk-1: hello"


def embeddings() -> bool:
    return len(client.embeddings.create(model="desk", input=["a b", "c d"]).data) == 2


def models() -> bool:
    return client.models.retrieve("desk/champion").id == "desk/champion"


report(chat, stream, tools, schema, responses, responses_stream, prompts, embeddings, models)

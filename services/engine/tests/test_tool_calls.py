"""Functions are described to the model, its calls are found in what it says, and can be enforced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from starlette.testclient import TestClient
from tunewheel_engine.prompts import chat_tokens
from tunewheel_engine.tool_calls import ToolCall, ToolCallReader
from tunewheel_testing.tiny import tiny_tokenizer

WEATHER = {
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
CLOSE_TICKET = {"type": "function", "function": {"name": "close_ticket"}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"day": "today"}}\n</tool_call>'
WITH_TOOLS = (
    "{% if tools %}{{ tools | length }}{% for tool in tools %}{{ tool.function.name }}{% endfor %}{% endif %}"
    "{% for message in messages %}{{ message.role }}:{{ message.content }}"
    "{% for call in message.tool_calls %}({{ call.function.name }} {{ call.function.arguments.day }})"
    "{% endfor %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def read(text: str, pieces: int) -> list[str | ToolCall]:
    reader = ToolCallReader(["weather", "close_ticket"])
    out: list[str | ToolCall] = []
    for at in range(0, len(text), pieces):
        out += reader.feed(text[at : at + pieces])
    out += reader.finish()
    joined: list[str | ToolCall] = []
    for part in out:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_calls_are_taken_out_of_text(pieces: int) -> None:
    other = '<tool_call>{"name": "close_ticket"}</tool_call>'
    found = read(f"Let me look.\n{CALL}\n{other}\n", pieces)
    assert found[0] == "Let me look."
    calls = [(call.name, json.loads(call.arguments)) for call in found[1:] if isinstance(call, ToolCall)]
    assert calls == [("weather", {"day": "today"}), ("close_ticket", {})]
    assert len(found) == 3
    assert read(CALL.removesuffix("\n</tool_call>"), pieces)[0].name == "weather", "the end may be missing"


@pytest.mark.parametrize("pieces", [1, 3, 1000])
@pytest.mark.parametrize(
    "text",
    [
        "no call at all ",
        "a < b and <tool",
        "<tool_call>{not json}</tool_call>",
        '<tool_call>{"name": "unknown", "arguments": {}}</tool_call> and so on',
        '<tool_call>{"name": ["weather"], "arguments": {}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": "today"}</tool_call>',
        '<tool_call>["weather"]</tool_call>',
        '<tool_call>\n{"name": "weather", "arg',
        "</tool_call> " + "<tool_call>" * 3,
        "\n \n",
    ],
)
def test_text_that_is_no_call_stays_text(text: str, pieces: int) -> None:
    assert read(text, pieces) == [text]


def test_text_is_given_out_as_soon_as_it_cannot_begin_a_call() -> None:
    reader = ToolCallReader(["weather"])
    assert [reader.feed(piece) for piece in ("Let", " me ", "<to", "p")] == [["Let"], [" me"], [], [" <top"]]


def prompt(messages: list[dict[str, Any]], tools: list[dict[str, Any]], template: str | None = None) -> str:
    tokenizer = tiny_tokenizer()
    if template:
        tokenizer.chat_template = template
    return tokenizer.decode(chat_tokens(tokenizer, messages, tools))


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "",
     "tool_calls": [{"id": "1", "function": {"name": "weather", "arguments": {"day": "today"}}}]},
    {"role": "tool", "content": "rain", "tool_call_id": "1"},
    {"role": "tool", "content": "wind", "tool_call_id": "2"},
    {"role": "user", "content": "Thanks"},
]  # fmt: skip


def test_a_template_that_knows_tools_writes_them() -> None:
    assert prompt(CONVERSATION, [WEATHER, CLOSE_TICKET], WITH_TOOLS) == (
        "2weatherclose_ticketsystem:Be brief.\nuser:Weather?\nassistant:(weather today)\n"
        "tool:rain\ntool:wind\nuser:Thanks\nassistant:"
    )


def test_any_other_template_gets_them_as_text() -> None:
    text = prompt(CONVERSATION, [WEATHER])
    system, rest = text.split("<|im_end|>", 1)
    assert system.startswith("<|im_start|>system\nBe brief.\n\n# Tools")
    assert json.dumps(WEATHER) in system
    assert f"<|im_start|>assistant\n{CALL}<|im_end|>" in rest
    assert "<|im_start|>user\n<tool_response>\nrain\n</tool_response>\n<tool_response>\nwind\n" in rest
    assert prompt(CONVERSATION[1:2], [WEATHER]).startswith("<|im_start|>system\n# Tools")
    assert "# Tools" not in prompt(CONVERSATION, [])


@pytest.fixture
def ask(http: TestClient, engine, tiny_base):
    # The description in text is longer than the tiny model's context.
    engine.tokenizer.chat_template = WITH_TOOLS

    def post(**change: object):
        body = {
            "model": tiny_base.name,
            "messages": [{"role": "user", "content": "Hello"}],
            "temperature": 1,
            "tools": [WEATHER, CLOSE_TICKET],
            **change,
        }
        return http.post("/v1/chat/completions", json=body)

    return post


def chunks(response) -> Iterator[dict[str, Any]]:
    for line in response.text.split("\n\n"):
        if line and "[DONE]" not in line:
            yield json.loads(line.removeprefix("data: "))


def test_a_named_function_is_called_with_arguments_that_fit(ask) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    for seed in range(4):
        choice = ask(tool_choice=named, seed=seed, ignore_eos=True).json()["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] is None
        [call] = choice["message"]["tool_calls"]
        assert (call["type"], call["function"]["name"]) == ("function", "weather")
        assert call["id"].startswith("call_")
        jsonschema.validate(json.loads(call["function"]["arguments"]), WEATHER["function"]["parameters"])


def test_some_function_is_called_where_one_is_required(ask) -> None:
    found = [
        ask(tool_choice="required", parallel_tool_calls=False, seed=seed).json()["choices"][0]
        for seed in range(8)
    ]
    assert {one["finish_reason"] for one in found} == {"tool_calls"}
    assert all(len(one["message"]["tool_calls"]) == 1 for one in found)
    names = {one["message"]["tool_calls"][0]["function"]["name"] for one in found}
    assert names == {"weather", "close_ticket"}


def test_streamed_calls_say_the_name_first(ask) -> None:
    asked = {"tool_choice": {"type": "function", "function": {"name": "weather"}}, "seed": 1}
    whole = ask(**asked).json()["choices"][0]["message"]["tool_calls"][0]
    streamed = [chunk["choices"][0] for chunk in chunks(ask(**asked, stream=True))]
    deltas = [call for choice in streamed for call in choice["delta"].get("tool_calls", [])]
    assert [delta["index"] for delta in deltas] == [0, 0]
    assert deltas[0]["function"] == {"name": "weather", "arguments": ""}
    assert deltas[0]["id"]
    assert deltas[1]["function"] == {"arguments": whole["function"]["arguments"]}
    assert [choice["finish_reason"] for choice in streamed if choice["finish_reason"]] == ["tool_calls"]
    assert not any(choice["delta"].get("content") for choice in streamed)


def test_a_call_or_json_where_both_are_asked_for(ask) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
              "additionalProperties": False}  # fmt: skip
    asked = {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}
    for seed in range(6):
        choice = ask(**asked, parallel_tool_calls=False, seed=seed).json()["choices"][0]
        if choice["finish_reason"] == "stop":
            jsonschema.validate(json.loads(choice["message"]["content"]), schema)
        else:
            assert choice["finish_reason"] == "tool_calls"


def test_a_strict_function_is_called_right_or_not_at_all(engine) -> None:
    from tunewheel_engine.chat_formats import answer_form
    from tunewheel_engine.openai_requests import ChatRequest

    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    body = ChatRequest(model="m", messages=[{"role": "user", "content": "x"}], tools=[strict])
    form = answer_form(body, engine.grammars, engine.tokenizer)
    assert form.grammar is not None

    def takes(text: str) -> bool:
        constraint = form.grammar.start()
        for token in engine.tokenizer(text).input_ids:
            constraint.accept(token)
        return constraint.failure is None

    assert takes("Free text, and < too. ")
    assert takes(f"I look. {CALL} and so on")
    assert takes(CALL + CALL)
    assert not takes('<tool_call>\n{"name": "weather", "arguments": {"day": "never')
    assert not takes("<tool_call>free text")


def test_no_call_is_looked_for_where_none_is_wanted(ask, engine) -> None:
    plain = ask(tools=[], tool_choice=None, temperature=0, max_tokens=8).json()["choices"]
    assert ask(tool_choice="none", temperature=0, max_tokens=8).json()["choices"] == plain


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "code", "function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "always"}, "tool_choice.type"),
        ({"tool_choice": {"type": "function", "function": {"name": "fly"}}}, "tool_choice.function.name"),
        ({"tool_choice": "required",
          "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]},
         "tools[0].function.parameters.type"),
        ({"tool_choice": "required",
          "tools": [WEATHER, {"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}]},
         "tools[1].function.parameters.not"),
        ({"messages": [{"role": "assistant", "content": None,
                        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}]}]},
         "messages[0].tool_calls[0].function.arguments"),
    ],
)  # fmt: skip
def test_an_error_names_the_invalid_field(ask, change: dict[str, Any], param: str) -> None:
    answer = ask(**change)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param

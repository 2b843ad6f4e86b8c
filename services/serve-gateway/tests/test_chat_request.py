from __future__ import annotations

import json
from typing import Any

import pytest
from tunewheel_serve_gateway.chat_body import MOST_BIASES, NOT_SERVED, PASSED_ON, WithoutEffect
from tunewheel_serve_gateway.chat_request import MOST_COMPLAINTS, ChatRequest, parse_chat_request
from tunewheel_serve_gateway.errors import BadRequest
from tunewheel_serve_gateway.routing import Target

WITHOUT_EFFECT = sorted(WithoutEffect.__annotations__)


def parsed(**parameters: Any) -> ChatRequest:
    body = {"model": "desk", "messages": [{"role": "user", "content": "hi"}], **parameters}
    return parse_chat_request(json.dumps(body).encode())


def refused(**parameters: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parsed(**parameters)
    return caught.value


OF_ENGINES = (
    "chat_template",
    "chat_template_kwargs",
    "priority",
    "ignore_eos",
    "min_tokens",
    "add_generation_prompt",
    "prompt_logprobs",
    "guided_regex",
    "vllm_xargs",
    "lora_request",
    "extra_body",
)


@pytest.mark.parametrize("name", OF_ENGINES)
def test_a_parameter_of_an_engine_is_refused_by_name(name: str):
    error = refused(**{name: 1})
    assert (error.param, error.code) == (name, "unknown_parameter")
    assert name in error.message


def test_a_name_without_end_is_not_said_back():
    error = refused(**{"x" * 100_000: 1})
    assert len(error.body()) < 1_000


TOOL: Any = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
CALL: Any = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
SERVED: dict[str, Any] = {
    "frequency_penalty": -0.5,
    "logit_bias": {"5": 1},
    "logprobs": True,
    "max_completion_tokens": 5,
    "max_tokens": 5,
    "min_p": 0.1,
    "n": 2,
    "presence_penalty": 2,
    "repetition_penalty": 1.2,
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
    "seed": -3,
    "stop": ["x", "y"],
    "temperature": 0,
    "tools": [TOOL],
    "top_k": -1,
    "top_p": 0.9,
}
WITH_OTHERS: dict[str, Any] = {
    "parallel_tool_calls": {"tools": [TOOL], "parallel_tool_calls": False},
    "tool_choice": {"tools": [TOOL], "tool_choice": "required"},
    "top_logprobs": {"logprobs": True, "top_logprobs": 3},
}


def test_every_parameter_that_is_listed_is_passed_on_as_it_is():
    assert {*SERVED, *WITH_OTHERS} == PASSED_ON
    for given in ({name: value} for name, value in SERVED.items()):
        assert parsed(**given).parameters == given
    for given in WITH_OTHERS.values():
        assert parsed(**given).parameters == given


@pytest.mark.parametrize("name", sorted({*PASSED_ON, *WITHOUT_EFFECT, *NOT_SERVED, *OF_ENGINES}))
def test_null_asks_for_nothing(name: str):
    assert parsed(**{name: None}).parameters == {}


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_parameters_that_change_no_answer_are_accepted_and_not_passed_on(name: str):
    assert parsed(**{name: "x"}).parameters == {}


ASKS_FOR_NOTHING: dict[str, Any] = {
    "function_call": "auto",
    "functions": [],
    "modalities": ["text"],
    "reasoning_effort": "none",
    "verbosity": "medium",
}


@pytest.mark.parametrize("name", sorted(NOT_SERVED))
def test_an_unsupported_parameter_is_accepted_only_with_a_value_without_effect(name: str):
    if name in ASKS_FOR_NOTHING:
        assert parsed(**{name: ASKS_FOR_NOTHING[name]}).parameters == {}
    error = refused(**{name: ["something"]})
    assert (error.param, error.code) == (name, "unsupported_parameter")
    assert name in error.message


WRONG: list[tuple[str, Any, str, str]] = [
    *((name, value, name, "invalid_type") for name in ("max_tokens", "n") for value in ("9", 9.5, 5.0, True)),
    ("max_completion_tokens", 0, "max_completion_tokens", "invalid_value"),
    ("n", 17, "n", "invalid_value"),
    ("seed", 1 << 63, "seed", "invalid_value"),
    ("seed", 10**30, "seed", "invalid_type"),
    ("temperature", 2.1, "temperature", "invalid_value"),
    ("temperature", "hot", "temperature", "invalid_type"),
    ("top_p", 0, "top_p", "invalid_value"),
    ("stop", 3, "stop", "invalid_type"),
    ("stop", ["x"] * 17, "stop", "invalid_value"),
    ("stop", [3], "stop[0]", "invalid_type"),
    ("logit_bias", {"token": 1}, "logit_bias.token", "invalid_value"),
    ("logit_bias", {"5": 101}, "logit_bias.5", "invalid_value"),
    ("top_logprobs", 3, "logprobs", "missing_required_parameter"),
    ("user", {"id": 1}, "user", "invalid_type"),
    ("safety_identifier", 1, "safety_identifier", "invalid_type"),
    ("stream", "yes", "stream", "invalid_type"),
    ("stream_options", 1, "stream_options", "invalid_type"),
    ("stream_options", {"usage": True}, "stream_options.usage", "unknown_parameter"),
    ("response_format", "json", "response_format", "invalid_type"),
    ("response_format", {"type": "regex"}, "response_format.type", "unsupported_value"),
    ("response_format", {"type": "json_schema"}, "response_format.json_schema", "missing_required_parameter"),
    (
        "response_format",
        {"type": "json_schema", "json_schema": {"schema": {}}},
        "response_format.json_schema.name",
        "missing_required_parameter",
    ),
    (
        "response_format",
        {"type": "text", "json_schema": {"name": "a"}},
        "response_format.json_schema",
        "missing_required_parameter",
    ),
    ("tools", [{"type": "web_search", "function": {"name": "a"}}], "tools[0].type", "unsupported_value"),
    ("tools", [{"type": "function"}], "tools[0].function", "missing_required_parameter"),
    (
        "tools",
        [{"type": "function", "function": {"name": "a b"}}],
        "tools[0].function.name",
        "invalid_value",
    ),
    ("tool_choice", "required", "tools", "missing_required_parameter"),
    ("tool_choice", "always", "tool_choice", "unsupported_value"),
    ("tool_choice", {"type": "function"}, "tool_choice.function", "missing_required_parameter"),
]


@pytest.mark.parametrize(("name", "value", "param", "code"), WRONG)
def test_a_wrong_value_is_refused_with_its_name_and_what_it_should_be(
    name: str, value: Any, param: str, code: str
):
    error = refused(**{name: value})
    assert (error.param, error.code) == (param, code)
    assert error.message.startswith(param.split("[")[0].split(".")[0]) or "needs" in error.message


def test_a_tool_that_is_chosen_by_name_is_one_of_the_tools():
    choice = {"type": "function", "function": {"name": "look_up"}}
    assert parsed(tools=[TOOL], tool_choice=choice).parameters["tool_choice"] == choice
    error = refused(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "other"}})
    assert (error.param, error.code) == ("tool_choice", "invalid_value")


@pytest.mark.parametrize(
    "said_nothing", [{"tools": []}, {"tool_choice": "auto"}, {"parallel_tool_calls": True}]
)
def test_tool_settings_without_tools_have_no_effect(said_nothing: Any):
    assert parsed(**said_nothing).parameters == {}


WRONG_MESSAGES: list[tuple[Any, str, str]] = [
    ("x", "messages", "invalid_type"),
    ([], "messages", "invalid_value"),
    (["x"], "messages[0]", "invalid_type"),
    ([{"content": "x"}], "messages[0].role", "missing_required_parameter"),
    ([{"role": "robot", "content": "x"}], "messages[0].role", "unsupported_value"),
    ([{"role": [], "content": "x"}], "messages[0].role", "unsupported_value"),
    ([{"role": "user"}], "messages[0].content", "missing_required_parameter"),
    ([{"role": "assistant", "content": None}], "messages[0].content", "missing_required_parameter"),
    ([{"role": "user", "content": 3}], "messages[0].content", "invalid_type"),
    ([{"role": "user", "content": []}], "messages[0].content", "invalid_value"),
    (
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}],
        "messages[0].content[1].type",
        "unsupported_value",
    ),
    (
        [{"role": "user", "content": "x", "tool_calls": [CALL]}],
        "messages[0].tool_calls",
        "invalid_value",
    ),
    ([{"role": "tool", "content": "x"}], "messages[0].tool_call_id", "missing_required_parameter"),
    (
        [{"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]}],
        "messages[0].tool_calls[0].function.arguments",
        "invalid_type",
    ),
]


@pytest.mark.parametrize(("messages", "param", "code"), WRONG_MESSAGES)
def test_a_wrong_message_is_refused_with_its_place(messages: Any, param: str, code: str):
    error = refused(messages=messages)
    assert (error.param, error.code) == (param, code)
    assert param in error.message


def test_a_conversation_about_tools_reaches_the_engine_and_the_log():
    echoed = {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [CALL]}
    asked = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        echoed,
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    request = parsed(messages=asked, tools=[TOOL])
    assert request.conversation == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    )
    assert [role for role, _ in request.messages] == ["system", "user", "assistant", "system"]
    assert json.loads(request.messages[2][1]) == [CALL]


def test_a_tool_result_does_not_replace_the_system_prompt():
    asked = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    request = parsed(messages=asked)
    target = Target(project="p", model_id="m", upstream_model="m", system_prompt="Answer.")
    body = request.upstream_body(target)
    assert body["messages"][0] == {"role": "system", "content": "Answer."}
    assert request.messages_with("Answer.")[0] == ("system", "Answer.")


BAD_JSON: list[tuple[bytes, str]] = [
    (b"{", "invalid_json"),
    (b"", "invalid_json"),
    (b'{"model": "\xff"}', "invalid_json"),
    (b'{"model": "\\ud800"}', "invalid_json"),
    (b'{"temperature": NaN}', "invalid_json"),
    (b'{"temperature": Infinity}', "invalid_json"),
    (b'{"temperature": 1e400}', "invalid_json"),
    (b"[" * 100_000, "invalid_json"),
    (b"[]", "invalid_type"),
    (b"null", "invalid_type"),
]


@pytest.mark.parametrize(("raw", "code"), BAD_JSON, ids=[str(raw[:20]) for raw, _ in BAD_JSON])
def test_a_body_that_is_no_json_object_is_refused(raw: bytes, code: str):
    with pytest.raises(BadRequest) as caught:
        parse_chat_request(raw)
    assert (caught.value.param, caught.value.code) == ("(body)", code)


def test_of_a_name_that_is_given_twice_the_last_one_counts():
    raw = b'{"model":"a","model":"b","messages":[{"role":"user","role":"user","content":"x"}]}'
    assert parse_chat_request(raw).model == "b"


def test_a_schema_that_is_nested_beyond_measure_is_refused():
    deep: Any = {}
    for _ in range(300):
        deep = {"properties": {"a": deep}}
    form = {"type": "json_schema", "json_schema": {"name": "deep", "schema": deep}}
    assert refused(response_format=form).param == "(body)"


def test_a_body_of_nothing_but_errors_is_refused_without_reading_them_all():
    error = refused(stream_options={str(n): n for n in range(MOST_COMPLAINTS + 1)})
    assert (error.param, error.code) == ("(body)", "invalid_value")
    assert len(error.body()) < 1_000
    assert refused(logit_bias={str(n): 1 for n in range(MOST_BIASES + 1)}).param == "logit_bias"
    assert refused(messages=[1] * 10_000).param == "messages[0]"

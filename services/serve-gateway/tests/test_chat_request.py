from __future__ import annotations

import json
from typing import Any

import pytest
from tunewheel_serve_gateway.chat_request import (
    NOT_SERVED,
    PASSED_ON,
    WITHOUT_EFFECT,
    ChatRequest,
    parse_chat_request,
)
from tunewheel_serve_gateway.errors import BadRequest


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


@pytest.mark.parametrize("name", sorted(PASSED_ON))
def test_what_is_listed_is_passed_on_as_it_is(name: str):
    value = 5 if name.startswith("max_") else {"any": ["thing"]}
    assert parsed(**{name: value}).parameters == {name: value}


@pytest.mark.parametrize("name", sorted({*PASSED_ON, *WITHOUT_EFFECT, *NOT_SERVED, *OF_ENGINES}))
def test_null_asks_for_nothing(name: str):
    assert parsed(**{name: None}).parameters == {}


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
def test_what_changes_no_answer_is_taken_and_ends_here(name: str):
    assert parsed(**{name: "x"}).parameters == {}


@pytest.mark.parametrize("name", sorted(NOT_SERVED))
def test_what_would_change_the_answer_is_taken_only_where_it_asks_for_nothing(name: str):
    for neutral in NOT_SERVED[name]:
        assert parsed(**{name: neutral}).parameters == {}
    error = refused(**{name: ["something"]})
    assert (error.param, error.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", ["9", 9.5, True, [9]])
def test_a_limit_is_a_whole_number(name: str, value: Any):
    assert refused(**{name: value}).param == name


@pytest.mark.parametrize("name", ["user", "safety_identifier"])
def test_who_asks_is_text(name: str):
    assert parsed(**{name: "u1"}).user == "u1"
    assert refused(**{name: {"id": 1}}).param == name

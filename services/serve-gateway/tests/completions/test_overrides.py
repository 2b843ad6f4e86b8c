"""What a client replaces of the project's own is on the log, so that nobody counts it as the model's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from tunewheel_contracts.formats.bundle import Decoding
from tunewheel_serve_gateway.chat_body import PASSED_ON
from tunewheel_serve_gateway.chat_request import parse_chat_request
from tunewheel_serve_gateway.completions.overrides import overrides_of
from tunewheel_serve_gateway.routing import Target
from tunewheel_testing.adapters import bundle_of

PROMPT = "Answer as JSON."
DECODING = Decoding(temperature=0.3, top_p=0.9)
BUNDLE = bundle_of(system_prompt=PROMPT, decoding=DECODING, max_output_tokens=64)
JUDGED = Target("desk", "desk-1", "desk-1", PROMPT, max_output_tokens=64, bundle=BUNDLE)
UNJUDGED = Target("desk", "org/Tiny-Base", "org/Tiny-Base", PROMPT, max_output_tokens=64)
TOOL = {"type": "function", "function": {"name": "look_up"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "any", "schema": {}}}


def found(target: Target = JUDGED, *, system: str | None = None, **parameters: Any) -> tuple[str, ...]:
    messages = [{"role": "user", "content": "hi"}]
    if system is not None:
        messages.insert(0, {"role": "developer", "content": system})
    body = {"model": "desk", "messages": messages, **parameters}
    return overrides_of(parse_chat_request(json.dumps(body).encode()), target)


def test_a_request_with_the_projects_own_settings_overrides_nothing():
    assert found() == ()
    assert found(system=PROMPT) == ()
    same = {"temperature": 0.3, "top_p": 0.9, "repetition_penalty": 1, "max_tokens": 64, "seed": 7, "n": 2}
    idle = {"frequency_penalty": 0, "top_k": -1, "stop": [], "logit_bias": {}, "tools": [], "logprobs": True}
    assert found(**same, **idle, response_format={"type": "text"}) == ()


def test_passages_that_the_project_would_not_have_given_are_named():
    """Nor those that it would have given, and that the client did not want."""
    request = parse_chat_request(b'{"model": "desk", "messages": [{"role": "user", "content": "hi"}]}')
    assert overrides_of(replace(request, retrieves_as_declared=False), UNJUDGED) == ("retrieval",)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"system": "You are a pirate."}, {"system_prompt"}),
        ({"response_format": {"type": "json_object"}}, {"response_format"}),
        ({"response_format": SCHEMA}, {"response_format"}),
        ({"tools": [TOOL], "tool_choice": "none"}, {"tools"}),
        ({"temperature": 1}, {"temperature"}),
        ({"top_p": 1, "repetition_penalty": 1.2}, {"top_p", "repetition_penalty"}),
        ({"top_k": 5, "min_p": 0.1, "stop": "\n"}, {"top_k", "min_p", "stop"}),
        ({"presence_penalty": 1, "logit_bias": {"5": 1}}, {"presence_penalty", "logit_bias"}),
        ({"max_tokens": 63}, {"max_tokens"}),
        ({"max_completion_tokens": 8, "max_tokens": 200}, {"max_tokens"}),
        ({"max_tokens": 200}, set()),
    ],
)
def test_each_overridden_setting_is_named(asked: dict[str, Any], names: set[str]):
    told = found(**asked)
    assert (set(told), len(told)) == (names, len(names))


def test_of_a_model_that_nobody_judged_no_sampling_is_replaced():
    assert found(UNJUDGED, temperature=1, system="Else.", max_tokens=5) == ("system_prompt", "max_tokens")


def test_every_parameter_that_reaches_the_engine_is_named_or_harmless():
    values: dict[str, Any] = {
        "frequency_penalty": 1, "logit_bias": {"5": 1}, "logprobs": True, "max_completion_tokens": 5,
        "max_tokens": 5, "min_p": 0.1, "n": 2, "parallel_tool_calls": False, "presence_penalty": 1,
        "repetition_penalty": 1.5, "response_format": SCHEMA, "seed": 3, "stop": ["x"], "temperature": 1,
        "tool_choice": "auto", "tools": [TOOL], "top_k": 3, "top_logprobs": 1, "top_p": 0.5,
    }  # fmt: skip
    assert values.keys() == PASSED_ON
    told = set(found(**values))
    harmless = {"logprobs", "top_logprobs", "n", "seed"}
    by_another_name = {"max_completion_tokens", "tool_choice", "parallel_tool_calls"}
    assert told == PASSED_ON - harmless - by_another_name


async def test_the_log_says_what_a_client_replaced(world: Any):
    await world.said(temperature=0.9, max_tokens=4)
    messages = [{"role": "system", "content": "You are a pirate."}, {"role": "user", "content": "hello"}]
    await world.said(messages=messages)
    plain, pirate = await world.completions(2)
    assert (plain.overrides, pirate.overrides) == ((), ("system_prompt",))

"""Engines' refusals, each in its own words, as OpenAI's."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_serve_gateway.upstream.protocol import LONGEST_MESSAGE, UpstreamRefused

TOO_LONG: list[dict[str, Any]] = [
    {  # tunewheel-engine
        "message": "the prompt has 9 tokens; with the answer, 8 are the limit; shorten it",
        "code": "context_length_exceeded",
    },
    # vLLM, of several years
    {
        "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
        "code": 400,
    },
    {
        "message": "'max_tokens' or 'max_completion_tokens' is too large: 8000. This model's maximum context "
        "length is 4096 tokens and your request has 2778 input tokens (8000 > 4096 - 2778)."
    },
    {"message": "The decoder prompt (length 5000) is longer than the maximum model length of 4096."},
    {
        "message": "This model's maximum context length is 2048 tokens. However, your prompt contains at "
        "least 2049 input tokens, which exceeds this limit even without any output tokens.",
        "param": "input_tokens",
        "code": 400,
    },
    # TGI
    {"message": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3474"},
    {"message": "Input validation error: `inputs` must have less than 1024 tokens. Given: 3474"},
]


@pytest.mark.parametrize("error", TOO_LONG, ids=lambda error: error["message"][:30])
@pytest.mark.parametrize("status", [400, 422])
def test_a_prompt_too_long_becomes_context_length_exceeded(error: dict[str, Any], status: int):
    refusal = UpstreamRefused(status, error)
    assert (refusal.status, refusal.code) == (400, "context_length_exceeded")
    assert (refusal.param, refusal.message) == ("messages", error["message"])


def test_an_overloaded_engine_becomes_rate_limit_exceeded():
    refusal = UpstreamRefused(429, {"message": "Model is overloaded", "code": 429})
    assert (refusal.status, refusal.code) == (429, "rate_limit_exceeded")
    assert UpstreamRefused(429, {"code": "queue_full"}).code == "queue_full"


def test_only_what_openais_errors_have_is_told():
    given = {"message": "x" * 10_000, "param": {"a": 1}, "code": 400, "type": "BadRequestError", "trace": "t"}
    refusal = UpstreamRefused(400, given)
    assert (refusal.status, refusal.param, refusal.code) == (400, None, None)
    assert len(refusal.message) == LONGEST_MESSAGE
    assert UpstreamRefused(400, {}).message == "the engine refuses the request"

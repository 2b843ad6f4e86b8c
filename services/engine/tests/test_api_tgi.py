"""TGI's surface on a tiny model."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from starlette.testclient import TestClient


def events(response) -> list[dict]:
    return [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n\n") if line]


def rounded(answer: Any) -> Any:
    """``answer`` to four decimals: what is known of a prompt already decides how it rounds."""
    return json.loads(json.dumps(answer), parse_float=lambda number: round(float(number), 4))


def test_whole_streamed_and_compatible_answers_agree(http: TestClient) -> None:
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": 5, "details": True}}
    whole = http.post("/generate", json=body).json()
    steps = events(http.post("/generate_stream", json=body))
    assert rounded(http.post("/", json=body).json()) == rounded([whole])
    assert rounded(events(http.post("/", json={**body, "stream": True}))) == rounded(steps)
    assert steps[-1]["generated_text"] == whole["generated_text"]
    assert rounded([step["token"] for step in steps]) == rounded(whole["details"]["tokens"])
    assert whole["details"]["generated_tokens"] == len(steps)


def test_the_default_length(http: TestClient) -> None:
    details = http.post("/generate", json={"inputs": "Hello", "parameters": {"details": True}}).json()[
        "details"
    ]
    assert details["generated_tokens"] <= 100


def test_nulls_mean_nothing(http: TestClient) -> None:
    names = (
        "adapter_id",
        "best_of",
        "do_sample",
        "grammar",
        "seed",
        "stop",
        "temperature",
        "top_p",
        "watermark",
    )
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": 4, **dict.fromkeys(names)}}
    plain = {"inputs": "Hello", "parameters": {"max_new_tokens": 4}}
    assert http.post("/generate", json=body).json() == http.post("/generate", json=plain).json()


def test_truncate_keeps_the_end_of_the_prompt(http: TestClient) -> None:
    def say(inputs: str, **parameters: object) -> str:
        body = {"inputs": inputs, "parameters": {"max_new_tokens": 6, **parameters}}
        return http.post("/generate", json=body).json()["generated_text"]

    assert say("aaaa bbbb cd", truncate=2) == say("zzzz yyyy cd", truncate=2)


@pytest.mark.parametrize(
    ("grammar", "expected"),
    [
        ({"type": "regex", "value": "[a-c]{3}"}, r"[a-c]{3}"),
        ({"type": "json", "value": {"enum": ["yes", "no"]}}, r'"(yes|no)"'),
        ({"type": "json_schema", "value": '{"enum": ["yes", "no"]}'}, r'"(yes|no)"'),
    ],
)
def test_a_grammar_is_kept(http: TestClient, grammar: dict, expected: str) -> None:
    parameters = {"grammar": grammar, "do_sample": True, "details": True}
    answer = http.post("/generate", json={"inputs": "Hello", "parameters": parameters}).json()
    assert re.fullmatch(expected, answer["generated_text"])
    assert answer["details"]["finish_reason"] == "eos_token"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "inputs"),
        ({"inputs": ""}, "inputs"),
        ({"inputs": "x" * 4000}, "inputs"),
        ({"inputs": "x", "parameters": {"max_new_tokens": 500}}, "max_new_tokens"),
        ({"inputs": "x", "parameters": {"top_p": 2}}, "parameters.top_p"),
        ({"inputs": "x", "parameters": {"best_of": 2}}, "best_of"),
        ({"inputs": "x", "parameters": {"adapter_id": "nobody"}}, "adapter_id"),
        ({"inputs": "x", "parameters": {"grammar": {"type": "bnf", "value": ""}}}, "parameters.grammar.type"),
        (
            {"inputs": "x", "parameters": {"grammar": {"type": "json", "value": "["}}},
            "parameters.grammar.value",
        ),
        (
            {"inputs": "x", "parameters": {"grammar": {"type": "regex", "value": "("}}},
            "parameters.grammar.value",
        ),
        ({"inputs": "x", "no_such": 1}, "no_such"),
    ],
)
def test_an_error_names_the_invalid_field(http: TestClient, body: dict, named: str) -> None:
    for path in ("/", "/generate", "/generate_stream"):
        response = http.post(path, json=body)
        assert response.status_code == 422
        assert response.json()["error"].startswith(named)
        assert response.json()["error_type"] == "validation"


def test_info(http: TestClient, tiny_base) -> None:
    info = http.get("/info").json()
    assert info["model_id"] == tiny_base.name
    assert info["model_sha"] == tiny_base.revision
    assert info["max_total_tokens"] == 128
    assert info["max_concurrent_requests"] == 5

"""JSON that is asked for is JSON that comes, and a schema that cannot be kept is refused by name."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from starlette.testclient import TestClient
from tunewheel_generation import constraint

SCHEMA = {
    "type": "object",
    "properties": {"category": {"enum": ["billing", "delivery"]}, "urgent": {"type": "boolean"}},
    "required": ["category", "urgent"],
    "additionalProperties": False,
}


def as_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


@pytest.fixture
def ask(http: TestClient, tiny_base):
    def post(format: dict[str, Any] | None, **change: object):
        body = {
            "model": tiny_base.name,
            "messages": [{"role": "user", "content": "Hello"}],
            "temperature": 1,
            **({"response_format": format} if format else {}),
            **change,
        }
        return http.post("/v1/chat/completions", json=body)

    return post


def test_a_schema_is_kept_at_any_seed_and_ends_the_answer(ask) -> None:
    texts = set()
    for seed in range(12):
        # Without ignore_eos a random model might end by chance; the end here is the grammar's.
        choice = ask(as_format(SCHEMA), seed=seed, ignore_eos=True).json()["choices"][0]
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)
        texts.add(choice["message"]["content"])
    assert len(texts) > 1


def test_greedy_answers_keep_it_too_and_a_cut_one_says_so(ask) -> None:
    whole = ask(as_format(SCHEMA), temperature=0).json()["choices"][0]
    jsonschema.validate(json.loads(whole["message"]["content"]), SCHEMA)
    cut = ask(as_format(SCHEMA), temperature=0, max_tokens=4).json()["choices"][0]
    assert cut["finish_reason"] == "length"
    assert whole["message"]["content"].startswith(cut["message"]["content"])


def test_any_object(ask, engine) -> None:
    [closing] = engine.tokenizer("}").input_ids
    biased = {"logit_bias": {closing: 5}}  # a random model would hardly ever close what it opened
    found = [ask({"type": "json_object"}, seed=seed, **biased).json()["choices"][0] for seed in range(5)]
    whole = [one["message"]["content"] for one in found if one["finish_reason"] == "stop"]
    assert whole
    assert all(isinstance(json.loads(text), dict) for text in whole)
    assert all(one["message"]["content"].startswith("{") for one in found)


def test_a_streamed_answer_is_the_whole_one(ask) -> None:
    whole = ask(as_format(SCHEMA), seed=3).json()["choices"][0]["message"]["content"]
    lines = ask(as_format(SCHEMA), seed=3, stream=True).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line and "[DONE]" not in line]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == whole
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("format", "param"),
    [
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}},
         "response_format.json_schema.name"),
        (as_format({"type": "object", "properties": {"age": {"type": "integer", "not": {"const": 3}}}}),
         "response_format.json_schema.schema.properties.age.not"),
        (as_format({"type": "object", "properties": {"if": {"type": "array", "contains": {"type": "null"}}}}),
         "response_format.json_schema.schema.properties.if.contains"),
        (as_format({"$ref": "https://example.com/schema"}), "response_format.json_schema.schema.$ref"),
        (as_format({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
         "response_format.json_schema.schema.oneOf"),
        (as_format({"type": "string", "format": "iban"}), "response_format.json_schema.schema.format"),
        (as_format({"type": "string", "pattern": "(?=a)b"}), "response_format.json_schema.schema.pattern"),
        (as_format({"type": "integer", "minimum": 3, "maximum": 1}), "response_format.json_schema.schema"),
        (as_format({"type": "no such type"}), "response_format.json_schema.schema.type"),
        (as_format({"properties": {"a": {"$ref": "#/$defs/ok"}, "b": {"$ref": "#/$defs/gone"}},
                    "$defs": {"ok": {"type": "null"}}}),
         "response_format.json_schema.schema.properties.b.$ref"),
        (as_format({"enum": ["x" * 70_000]}), "response_format.json_schema.schema"),
    ],
)  # fmt: skip
def test_an_unsupported_keyword_is_refused_by_name(ask, format: dict[str, Any], param: str) -> None:
    answer = ask(format)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(param.split(":")[0])
    assert len(error["message"]) < 600
    assert ask(None, max_tokens=2).status_code == 200


def test_the_client_cannot_loosen_the_grammar(ask) -> None:
    loose = {**SCHEMA, "x-guidance": {"lenient": True, "whitespace_flexible": True}}
    text = ask(as_format(loose), temperature=0).json()["choices"][0]["message"]["content"]
    assert text == ask(as_format(SCHEMA), temperature=0).json()["choices"][0]["message"]["content"]
    unknown = {**loose, "not": {}}
    assert ask(as_format(unknown)).json()["error"]["param"] == "response_format.json_schema.schema.not"


def test_a_grammar_that_outgrows_its_limits_fails_alone(ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(constraint._LIMITS, "step_max_items", 1)
    failed = ask(as_format({**SCHEMA, "title": "compiled with these limits"}))
    assert failed.status_code == 500
    assert failed.json()["error"]["code"] == "constraint_failed"
    assert ask(as_format(SCHEMA | {"title": "not"}), stream=True).text.count("constraint_failed") == 1
    assert ask(None, max_tokens=2).status_code == 200

"""Whatever a model prefers, an answer that keeps to its grammar is valid when it ends."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_engine.structured_output import json_object, json_source, regex_source
from tunewheel_generation import constraint as module
from tunewheel_generation.constraint import KEPT_GRAMMARS, GrammarConstraint, Grammars, InvalidGrammar
from tunewheel_testing.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
END = TOKENIZER.eos_token_id
SIZE = len(TOKENIZER)
LONGEST = 120
CLOSING = [END, *(TOKENIZER(letter).input_ids[0] for letter in '}]",')]

SCHEMAS: dict[str, dict[str, Any]] = {
    "any object": json_object(),
    "record": {
        "type": "object",
        "properties": {
            "category": {"enum": ["billing", "delivery", "größe"]},
            "priority": {"type": "integer", "minimum": 1, "maximum": 12},
            "score": {"type": "number", "exclusiveMinimum": -1.5, "maximum": 2},
            "reply": {"type": "string", "minLength": 1, "maxLength": 12},
            "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-c]+$"}, "maxItems": 3},
            "note": {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
        },
        "required": ["category", "priority", "score", "reply", "tags"],
        "additionalProperties": False,
    },
    "tree": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "day": {"type": "string", "format": "date"},
                    "inner": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
                },
                "required": ["day"],
                "additionalProperties": False,
            }
        },
    },
    "map": {
        "type": "object",
        "additionalProperties": {"type": "array", "prefixItems": [{"const": "a"}, {"type": "integer"}],
                                 "items": False, "minItems": 2},
        "minProperties": 1,
    },
}  # fmt: skip


GRAMMARS = Grammars(TOKENIZER, frozenset({END}))


def write(constraint: GrammarConstraint, preferences: list[int]) -> tuple[str, bool]:
    """An answer made of what is allowed, by a model whose preferences are these, and whether it ended.

    After the preferences it closes what it can, and else takes the allowed tokens in turn.
    """
    tokens: list[int] = []
    while not constraint.ended and len(tokens) < LONGEST:
        allowed = constraint.allowed(SIZE).tolist()
        assert constraint.failure is None, constraint.failure
        if len(tokens) < len(preferences):
            token = allowed[preferences[len(tokens)] % len(allowed)]
        else:
            token = next((one for one in CLOSING if one in allowed), None)
            token = allowed[len(tokens) % len(allowed)] if token is None else token
        tokens.append(token)
        constraint.accept(tokens[-1])
    return TOKENIZER.decode([token for token in tokens if token != END]), constraint.ended


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
@given(preferences=st.lists(st.integers(0, SIZE), max_size=50))
@settings(max_examples=12)
def test_an_answer_that_ended_is_valid(schema: dict[str, Any], preferences: list[int]) -> None:
    grammar = GRAMMARS.compile(json_source(schema, param="schema"))
    text, ended = write(grammar.start(), preferences)
    if ended:
        jsonschema.validate(json.loads(text), schema, cls=jsonschema.Draft202012Validator)


def test_most_answers_end() -> None:
    """The property above says something: without it the answers might all be cut by length."""
    grammar = GRAMMARS.compile(json_source(SCHEMAS["record"], param="schema"))
    answers = [write(grammar.start(), [seed * 7 + at for at in range(12)]) for seed in range(20)]
    assert sum(ended for _, ended in answers) >= 15, answers
    assert len(set(answers)) >= 10


def test_white_space_does_not_go_on() -> None:
    constraint = GRAMMARS.compile(json_source(json_object(), param="schema")).start()
    constraint.accept(TOKENIZER("{").input_ids[0])
    white = {token for token in range(SIZE) if TOKENIZER.decode([token]).isspace()}
    written = ""
    while blank := white & set(constraint.allowed(SIZE).tolist()):
        written += TOKENIZER.decode([min(blank, key=lambda token: len(TOKENIZER.decode([token])))])
        constraint.accept(TOKENIZER(written[-1]).input_ids[0])
        assert len(written) < 100
    assert written in (" ", "\n" + " " * 16)


def test_a_regular_expression() -> None:
    constraint = GRAMMARS.compile(regex_source(r"[0-9]{2}-x")).start()
    assert write(constraint, [3, 5, 1, 0])[1]
    with pytest.raises(InvalidGrammar):
        GRAMMARS.compile(regex_source("(unclosed"))


def test_rows_of_one_grammar_do_not_share_where_they_are() -> None:
    grammar = GRAMMARS.compile(json_source(SCHEMAS["record"], param="schema"))
    first, second = grammar.start(), grammar.start()
    before = second.allowed(SIZE).tolist()
    for token in TOKENIZER('{"category').input_ids:
        first.accept(token)
    assert second.allowed(SIZE).tolist() == before != first.allowed(SIZE).tolist()
    assert grammar.start().allowed(SIZE).tolist() == before


def test_compiled_grammars_are_kept_up_to_a_bound() -> None:
    first = GRAMMARS.compile(regex_source("a"))
    assert GRAMMARS.compile(regex_source("a")) is first
    for number in range(KEPT_GRAMMARS):
        GRAMMARS.compile(regex_source(f"b{number}"))
    assert len(GRAMMARS) == KEPT_GRAMMARS
    assert GRAMMARS.compile(regex_source("a")) is not first


def test_a_token_that_is_not_allowed_is_a_failure() -> None:
    constraint = GRAMMARS.compile(regex_source("[0-9]+")).start()
    constraint.accept(TOKENIZER("x").input_ids[0])
    assert constraint.failure
    assert constraint.allowed(SIZE).tolist() == [END]


def test_a_model_without_an_end_token_cannot_be_constrained() -> None:
    with pytest.raises(InvalidGrammar, match="no end token"):
        Grammars(TOKENIZER, frozenset()).compile(regex_source("a"))


def test_a_grammar_over_the_limits_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._LIMITS, "max_grammar_size", 10)
    with pytest.raises(InvalidGrammar):
        GRAMMARS.compile(json_source(SCHEMAS["tree"], param="schema"))

from __future__ import annotations

import json
from typing import Any

import pytest
from tunewheel_contracts.formats.confidence import Confidence
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_outputs.confidence import confidence_of, label_span

BY_FIELD = TaskSpec(system_prompt="Answer.", label_field="c")
PLAIN = TaskSpec.model_validate(
    {"system_prompt": "Answer.", "output_rules": [{"rule": "allowed_values", "values": ["bell", "horn"]}]}
)


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        ('{"c": "bell", "reply": "ring the bell"}', '"bell"'),
        ('{"reply": "not \\"c\\": 5", "c" : "bell"}', '"bell"'),
        ('{"inner": {"c": "horn"}, "c": "bell"}', '"bell"'),
        ('{"ü": "größer", "c": "Große Glocke"}', '"GroßeGlocke"'),
        ('{"c": 3.0}', "3.0"),
        ('{"c": true}', "true"),
        ('{"c": "a\\u0062"}', '"a\\u0062"'),
    ],
)
def test_a_label_is_found_where_it_stands(answer: str, written: str):
    start, end = label_span(answer, BY_FIELD) or (0, 0)
    solid = "".join(answer.split()).encode()
    assert solid[start:end].decode() == written
    assert start >= solid.index(b'"c"')


@pytest.mark.parametrize("answer", ["c: bell", "{}", '{"c": null}', '{"c": "b'])
def test_an_answer_without_a_label_has_no_span(answer: str):
    assert label_span(answer, BY_FIELD) is None


def test_a_plain_label_is_the_answer_without_white_space():
    assert label_span(" bell\n", PLAIN) == (0, 4)


TOKENS = [('{"c": ', -0.01), ('"be', -0.5), ("ll", -0.25), ('", ', -0.1), ('"x": "long"}', -3.0)]
ANSWER = json.dumps({"c": "bell", "x": "long"})


def measured(answer: str, tokens: Any, task: TaskSpec | None = BY_FIELD) -> Confidence | None:
    return confidence_of(answer, [(text.encode(), value) for text, value in tokens], task)


def test_the_confidence_in_a_label_is_that_of_the_tokens_that_write_it():
    assert "".join(text for text, _ in TOKENS) == ANSWER
    found = measured(ANSWER, TOKENS)
    assert found is not None
    assert found.label == pytest.approx(-0.85)  # the token with the closing quote writes a part of it
    assert (found.tokens, found.total, found.least) == (5, pytest.approx(-3.86), -3.0)


@pytest.mark.parametrize(
    "tokens",
    [
        [*TOKENS, ("<|im_end|>", -9.0)],  # an end token
        [*TOKENS[:-1], ('"x": "long"}\n\nUser:', -3.0), (" hi", -9.0)],  # a stop string and what follows
        [(text.strip(), value) for text, value in TOKENS],  # as engines write tokens of SentencePiece
    ],
)
def test_tokens_after_the_answer_and_white_space_change_nothing(tokens: Any):
    assert measured(ANSWER, tokens) == measured(ANSWER, TOKENS)


@pytest.mark.parametrize("tokens", [[], TOKENS[1:], TOKENS[:-1], [("<think>", -0.1), *TOKENS]])
def test_tokens_of_another_text_say_nothing_of_the_answer(tokens: Any):
    assert measured(ANSWER, tokens) is None


def test_a_character_may_stand_in_two_tokens():
    first, second = "ü".encode()[:1], "ü".encode()[1:]
    tokens = [(b'{"c": "f', -0.5), (first, -0.25), (second + b'r"}', -0.125)]
    found = confidence_of('{"c": "für"}', tokens, BY_FIELD)
    assert found is not None
    assert found.label == -0.875


def test_without_labels_there_is_only_the_confidence_in_the_answer():
    assert measured("", [("<|im_end|>", -0.1)]) is None
    found = measured("hello", [("hello", 1e-7)], None)
    assert found is not None
    assert (found.total, found.label) == (0.0, None)


@pytest.mark.parametrize(
    "pieces", [[b"a\xff\xfe", b"\xe2\x82", b"b"], [b"a\xff", b"\xfe\xe2", b"\x82b"], [b"a\xff\xfe\xe2\x82b"]]
)
def test_bytes_that_are_no_text_are_compared_as_engines_write_them(pieces: list[bytes]):
    answer = b"".join(pieces).decode(errors="replace")
    found = confidence_of(answer, [(piece, -1.0) for piece in pieces], None)
    assert found is not None
    assert (found.tokens, found.total) == (len(pieces), -len(pieces))
    assert confidence_of(f"{answer}?", [(piece, -1.0) for piece in pieces], None) is None

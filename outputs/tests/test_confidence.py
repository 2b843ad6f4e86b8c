from __future__ import annotations

import json

import pytest
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
        ('{"ü": "größer", "c": "Größe"}', '"Größe"'),
        ('{"c": 3.0}', "3.0"),
        ('{"c": true}', "true"),
        ('{"c": "a\\u0062"}', '"a\\u0062"'),
    ],
)
def test_a_label_is_found_where_it_stands(answer: str, written: str):
    start, end = label_span(answer.encode(), BY_FIELD) or (0, 0)
    assert answer.encode()[start:end].decode() == written
    assert start >= answer.encode().index(b'"c"')


@pytest.mark.parametrize("answer", [b"c: bell", b"{}", b'{"c": null}', b'{"c": "b', b'{"c": "\xff"}'])
def test_an_answer_without_a_label_has_no_span(answer: bytes):
    assert label_span(answer, BY_FIELD) is None


def test_a_plain_label_is_the_answer_without_white_space():
    assert label_span(b" bell\n", PLAIN) == (1, 5)


def test_the_confidence_in_a_label_is_that_of_the_tokens_that_write_it():
    answer = json.dumps({"c": "bell", "x": "long"})
    tokens = [('{"c": ', -0.01), ('"be', -0.5), ("ll", -0.25), ('", ', -0.1), ('"x": "long"}', -3.0)]
    assert "".join(text for text, _ in tokens) == answer
    found = confidence_of([(text.encode(), value) for text, value in tokens], BY_FIELD)
    assert found is not None
    assert found.label == pytest.approx(-0.85)  # the token with the closing quote writes a part of it
    assert (found.tokens, found.total, found.least) == (5, pytest.approx(-3.86), -3.0)
    assert found.mean == pytest.approx(-3.86 / 5)


def test_a_character_may_stand_in_two_tokens():
    first, second = "ü".encode()[:1], "ü".encode()[1:]
    tokens = [(b'{"c": "f', -0.5), (first, -0.25), (second + b'r"}', -0.125)]
    found = confidence_of(tokens, BY_FIELD)
    assert found is not None
    assert found.label == -0.875


def test_without_tokens_there_is_no_confidence_and_without_labels_only_that_in_the_answer():
    assert confidence_of([], BY_FIELD) is None
    found = confidence_of([(b"hello", 1e-7)], None)
    assert found is not None
    assert (found.total, found.label) == (0.0, None)

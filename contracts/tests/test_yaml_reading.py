from __future__ import annotations

import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.spec import parse_spec
from tunewheel_contracts.yaml_reading import DuplicateKey, read_yaml


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "a is given in line 1 and again in line 3; keep one of them"),
        ("a: 1\n'a': 1\n", "a is given in line 1 and again in line 2"),
        ("a: {b: 1, b: 2}", "a.b is given in line 1 and again in line 1"),
        ("a:\n- b: 1\n- c: 1\n  d: 2\n  c: 3\n", "a.1.c is given in line 3 and again in line 5"),
        ("a: &x\n  b: 1\n  b: 2\nc: *x\n", "a.b is given in line 2 and again in line 3"),
    ],
    ids=["top", "quoted", "flow", "list", "anchor"],
)
def test_a_key_that_is_given_twice_is_refused_by_name_and_line(text: str, words: str) -> None:
    with pytest.raises(DuplicateKey) as refused:
        read_yaml(text)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: {b: 1}\nc: {b: 1}\n", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\n", {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}}),
        ("1: a\n'1': b\n", {1: "a", "1": "b"}),
        ("a: &x [1]\nb: [*x, *x]\n", {"a": [1], "b": [[1], [1]]}),
    ],
    ids=["empty", "siblings", "merged", "types", "aliases"],
)
def test_keys_that_only_look_alike_are_read(text: str, value: object) -> None:
    assert read_yaml(text) == value


def test_a_spec_with_a_key_twice_names_its_path_and_lines() -> None:
    text = "project: desk\ntrain:\n  learning_rate: 0.001\n  epochs: 2\n  learning_rate: 0.002\n"
    with pytest.raises(InvalidSpec) as refused:
        parse_spec(text)
    assert refused.value.field == "train.learning_rate"
    assert refused.value.reason == "is given in line 3 and again in line 5; keep one of them"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("project: desk\ntrain: [1\nepochs: 2\n", "line 3, column 7:\n    epochs: 2\n          ^"),
        ("project: desk\ntrain: [1", ":\n    train: [1\n           ^"),
        ("project: \x01", "control characters are not allowed"),
    ],
    ids=["within", "end", "character"],
)
def test_a_spec_that_is_no_yaml_is_shown_where(text: str, shown: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_spec(text)
    assert refused.value.reason.startswith("is not YAML: ")
    assert shown in refused.value.reason

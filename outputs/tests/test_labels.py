from __future__ import annotations

from typing import Any

import pytest
from tunewheel_outputs.labels import MISSING, label_of, same_label


@pytest.mark.parametrize(
    ("output", "label"),
    [
        ('{"category": "billing", "x": 1}', "billing"),
        ('{"category": null}', None),
        ("{}", MISSING),
        ("[]", MISSING),
        ("category: billing", MISSING),
    ],
)
def test_label_is_read_from_the_answer(output: str, label: Any) -> None:
    assert label_of(output, "category") == label


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ('{"c": "a"}', '{"c": "a", "d": 1}', True),
        ('{"c": 1}', '{"c": true}', False),
        ('{"c": 1.0}', '{"c": 1}', True),
        ('{"c": [{"d": 2, "e": 0}]}', '{"c": [{"e": 0.0, "d": 2.0}]}', True),
        ('{"c": [1]}', '{"c": [true]}', False),
        ('{"c": [1, 2]}', '{"c": [1]}', False),
        ('{"c": {"d": 1}}', '{"c": {"e": 1}}', False),
        ('{"c": "1"}', '{"c": 1}', False),
        ('{"c": ["a"]}', '{"c": ["a"]}', True),
        ("{}", "{}", False),
        ('{"c": "A"}', '{"c": "a"}', False),
    ],
)
def test_labels_are_compared_as_json_values(output: str, expected: str, same: bool) -> None:
    assert same_label(output, expected, "c") is same

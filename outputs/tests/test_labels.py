from __future__ import annotations

import pytest
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_outputs.labels import label_of, same_label

BY_FIELD = TaskSpec(system_prompt="Answer.", label_field="c")
PLAIN = TaskSpec.model_validate(
    {"system_prompt": "Answer.", "output_rules": [{"rule": "allowed_values", "values": ["bell", "horn"]}]}
)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ('{"c": "bell", "x": 1}', "bell"),
        ('{"c": true}', "true"),
        ('{"c": 3}', "3"),
        ('{"c": 3.0}', "3"),
        ('{"c": 0.5}', "0.5"),
        ('{"c": ["bell"]}', '["bell"]'),
        ('{"c": null}', None),
        ("{}", None),
        ("[]", None),
        ("c: bell", None),
    ],
)
def test_a_label_is_the_text_of_a_json_field(answer: str, label: str | None) -> None:
    assert label_of(answer, BY_FIELD) == label


def test_a_whole_answer_is_a_label_only_if_a_rule_lists_its_values() -> None:
    assert label_of(" bell\n", PLAIN) == "bell"
    assert label_of(" ", PLAIN) is None
    assert label_of("bell", TaskSpec(system_prompt="Answer.")) is None


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
        ('{"c": null}', '{"c": null}', True),
        ("{}", "{}", False),
        ('{"c": "A"}', '{"c": "a"}', False),
    ],
)
def test_labels_are_compared_as_json_values(output: str, expected: str, same: bool) -> None:
    assert same_label(output, expected, "c") is same

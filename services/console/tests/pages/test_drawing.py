"""An answer that is a JSON object is shown by its fields, and any other answer as its own text."""

from __future__ import annotations

import pytest
from tunewheel_console.pages.drawing import fields


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"category": "bell", "reply": "Ring."}', {"category": "bell", "reply": "Ring."}),
        (' {"n": null, "of": [1, 2]}\n', {"n": None, "of": [1, 2]}),
        ('{"category": "bell", "reply": "Ri', {}),
        ('["bell"]', {}),
        ("Ring the bell.", {}),
        ("", {}),
        ("[" * 100_000, {}),
    ],
)
def test_only_a_json_object_has_fields(answer: str, expected: dict[str, object]):
    assert fields(answer) == expected

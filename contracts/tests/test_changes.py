from __future__ import annotations

from tunewheel_contracts.changes import changes


def test_each_difference_is_named_by_its_path() -> None:
    before = {"task": {"prompt": "a", "rules": [1, 2]}, "same": {"x": 1}, "gone": {}, "": 1}
    after = {"task": {"prompt": "b", "rules": [1]}, "same": {"x": 1}, "new": {"deep": None}, "": 2}
    assert changes(before, after) == {
        "task.prompt": ("a", "b"),
        "task.rules": ([1, 2], [1]),
        "gone": ({}, None),
        "": (1, 2),
    }


def test_a_document_that_is_missing_lacks_every_path() -> None:
    assert changes({}, {"rank": 8}) == {"rank": (None, 8)}
    assert changes({}, {}) == {}

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_contracts.identity import canonical_json, content_id, content_sha256, event_id

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    assert content_sha256(dict(reversed(value.items()))) == content_sha256(value)


def test_known_hashes_stay() -> None:
    """Ids on the log rest on these; a change here orphans every artifact."""
    assert content_sha256(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert canonical_json({"b": 1, "a": ["ü", None, 1.5]}) == '{"a":["ü",null,1.5],"b":1}'.encode()
    assert content_id("ds", {"b": 1, "a": 2}) == "ds-d3626ac30a87e6f7a6428233b3c68299976865fa"[:23]
    assert event_id("a.b", "s", {}) == event_id("a.b", "s", {})


def test_type_subject_and_identity_each_tell_events_apart() -> None:
    ids = {
        event_id(type_, subject, identity)
        for type_ in ("a.b", "a.c")
        for subject in ("s", "t")
        for identity in ({}, {"x": 1})
    }
    assert len(ids) == 8


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_values_that_json_cannot_represent_have_no_hash(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        content_sha256(value)

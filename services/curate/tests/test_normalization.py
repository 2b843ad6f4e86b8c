from __future__ import annotations

import pytest
from tunewheel_curate.normalization import comparison_key, normalize_records, normalize_text


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("It wonâ€™t ring", "It won’t ring"),  # noqa: RUF001
        ("a \t b  \r\n\r\n\r\n\r\nc ", "a b\n\nc"),
        ("ring\x00\x07!", "ring!"),
        ("ﬁne", "fine"),
        ("Großküche", "Großküche"),
    ],
)
def test_text_is_repaired(raw: str, clean: str) -> None:
    assert normalize_text(raw) == clean
    assert normalize_text(clean) == clean


def test_texts_that_read_the_same_have_one_key() -> None:
    assert comparison_key("It’s  LATE\n") == comparison_key("it's late")  # noqa: RUF001
    assert comparison_key("late") != comparison_key("late?")


def test_near_empty_inputs_are_dropped(records) -> None:
    stage = normalize_records(records({"input": " hi "}, {"output": " \n"}, {}), min_characters=3)
    assert stage.funnel.reasons == {"near_empty": 1, "no_output": 1}
    assert stage.kept.height == 1

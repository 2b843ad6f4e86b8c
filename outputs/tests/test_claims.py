from __future__ import annotations

import pytest
from tunewheel_outputs.claims import supported

WARRANTY = (
    "The warranty for batteries is 24 months. The warranty for frames is 60 months. "
    "Batteries are covered. Water damage is not covered.",
    "Bikes: the lease lasts 1,000 days, the insurance 12 days.",
)


@pytest.mark.parametrize(
    "said",
    [
        "The warranty for batteries is 60 months.",
        "Batteries 60 months, frames 24.",
        "Batteries have a warranty of 60 months and frames of 24 months.",
        "The battery warranty is twenty-five months.",
        "The battery warranty is 24 hours.",
        "Batteries are not covered.",
        "Batteries aren't covered.",
        "Water damage is covered.",
        "The insurance lasts 1000 days, the lease 12 days.",
        "Yes. Batteries are covered. The warranty for batteries is 60 months.",
    ],
)
def test_a_claim_that_contradicts_its_sentence_has_no_support(said: str) -> None:
    assert supported(said, WARRANTY) == 0.0
    assert supported(said, WARRANTY, "My battery is 60 months old, my frame 24 months. Covered?") == 0.0


@pytest.mark.parametrize(
    "said",
    [
        "The warranty for batteries is 24 months.",
        "For frames the warranty is 60 months; for batteries the warranty is 24 months.",
        "Batteries: twenty-four months; frames: sixty months.",
        "Is water damage covered? Water damage isn't covered.",
        "1. Batteries are covered.\n2. Water damage is not covered.",
        "No later than 24 months: the warranty for batteries.",
        "The lease lasts 1000 days and the insurance 12 days.",
    ],
)
def test_a_claim_in_other_words_keeps_its_support(said: str) -> None:
    assert supported(said, WARRANTY) > 0.7


def test_a_number_that_names_a_thing_of_the_question_contradicts_nothing() -> None:
    assert supported("Order 77 takes 14 days.", ["Refunds take 14 days."], "Where is order 77?") == 1.0
    assert supported("Order 78 takes 14 days.", ["Refunds take 14 days."], "Where is order 77?") == 0.0


def test_words_in_another_sentence_or_another_order_count_less() -> None:
    text = ["The backup calls the primary before the lease ends. Restart the router if the light is red."]
    said = "The backup calls the primary before the lease ends."
    whole = supported(said, text)
    assert whole == supported("Before the lease ends, the backup calls the primary.", text) == 1.0
    assert supported("The primary calls the backup before the lease ends.", text) < whole
    assert supported("The backup calls the primary if the light is red.", text) < whole
    assert supported("", text) == supported("Yes.", text) == 1.0


def test_text_without_spaces_is_compared_by_characters() -> None:
    text = ["电池保修期为24个月。车架保修期为60个月。电池保修。"]
    assert supported("电池保修期为24个月。", text) == 1.0
    assert supported("电池保修期为60个月。", text) == supported("电池不保修。", text) == 0.0

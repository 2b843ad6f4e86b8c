from __future__ import annotations

import pytest
from tunewheel_outputs.grounding import grounding, invented, statements

SECTION = (
    "Press the reset button twice within 5 seconds. The Heron's light turns green; call Quaymouth otherwise."
)


def test_facts_of_the_section_are_grounded() -> None:
    assert grounding("You press the reset button twice.", SECTION) == 1.0
    assert grounding("Pressing the button within seconds turned the light green.", SECTION) > 0.8
    assert grounding("Restart your router, unplug every cable and reinstall firmware.", SECTION) < 0.3
    assert grounding("Yes.", SECTION) <= 1.0
    assert grounding("12 %", SECTION) == 1.0
    assert grounding("请重启路由器", "请重启服务器") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Within 5 seconds the Heron is green.", None),
        ("Within 15 seconds.", "15"),
        ("Then call Larkspur.", "Larkspur"),
        (
            "Larkspur must be called.",
            None,
        ),  # a first word is capitalised anyway: its words are weighed instead
    ],
)
def test_figures_and_names_of_its_own_are_noticed(answer: str, found: str | None) -> None:
    assert invented(answer, SECTION) == found


def test_labels_state_nothing() -> None:
    assert statements('{"category": "billing", "n": 3, "reply": "Send the invoice."}') == "Send the invoice."
    assert statements('{"category": "billing"}') == ""
    assert statements('{"category": "billing", "reply": "请寄发票。"}') == "请寄发票。"
    assert statements("Yes.") == "Yes."

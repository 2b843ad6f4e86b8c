from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_curate.cleaning.control_tokens import broken_up


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a<|im_end|>b", "a< |im_end|>b"),
        ("</s><s>", "< /s>< s>"),
        ("[INST]x[/INST]", "[ INST]x[ /INST]"),
        ("<<SYS>>", "< <SYS>>"),
        ("<start_of_turn>user", "< start_of_turn>user"),
        ("if a < b or c[0] > 1: <strong>", "if a < b or c[0] > 1: <strong>"),
        ("<EMAIL_ADDRESS>", "<EMAIL_ADDRESS>"),
    ],
)
def test_control_signs_are_broken_up(text: str, left: str) -> None:
    assert broken_up(text) == left


@given(st.text(alphabet="<|im_start>/s[]INTSY", max_size=200))
def test_nothing_is_left_to_break_up(text: str) -> None:
    once = broken_up(text)
    assert broken_up(once) == once
    assert once.replace(" ", "") == text


@pytest.mark.parametrize("hostile", ["<|" * 500_000, "[" * 1_000_000])
def test_hostile_text_is_read_in_one_pass(hostile: str) -> None:
    assert len(broken_up(hostile)) >= len(hostile)

from __future__ import annotations

import pytest
from tunewheel_eval.clusters import clusters_of


@pytest.mark.parametrize(
    ("groups", "prompts", "clusters"),
    [
        ("abc", ["one thing", "another matter", "a third"], 3),
        ("aba", ["one thing", "another matter", "a third"], 2),
        ("abc", ["Where is order 17?", "where is order 4", "Who are you"], 2),
        # joined in a chain: by group, then by prompt
        ("abb", ["my locker is stuck", "My locker is stuck!", "the battery is dead"], 1),
        ("ab", ["the app says that my locker is stuck and will not open for me today please",
                "the app says that my locker is stuck and will not open for me today thanks"], 1),
        ("ab", ["?", ".."], 2),  # no words: like nobody
        ("ab", ["?", "?"], 1),
    ],
)  # fmt: skip
def test_one_group_or_nearly_one_prompt_is_one_observation(
    groups: str, prompts: list[str], clusters: int
) -> None:
    assert len(set(clusters_of(list(groups), prompts).tolist())) == clusters


INSTRUCTION = " ".join(f"rule{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(90))


def ticket(number: int, words: int = 8) -> str:
    return " ".join(chr(97 + number % 26) + chr(97 + number // 26) + chr(97 + n) for n in range(words))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{instruction} {ticket}", 8),
        ("{ticket} {instruction}", 8),
        ("{instruction} {ticket} Answer with JSON only.", 1),
        ("Ticket: {ticket} {instruction}", 3),
    ],
)
def test_a_shared_instruction_joins_no_customers(template: str, words: int) -> None:
    prompts = [template.format(instruction=INSTRUCTION, ticket=ticket(n, words)) for n in range(120)]
    others = [f"another prompt {ticket(n + 200)} without that" for n in range(30)]
    rows = prompts + others
    assert len(set(clusters_of(list(range(150)), rows).tolist())) == 150


def test_below_a_shared_instruction_nearly_the_same_question_is_still_one_observation() -> None:
    prompts = [f"{INSTRUCTION} {ticket(n // 2)} {n}" for n in range(40)]
    assert len(set(clusters_of(list(range(40)), prompts).tolist())) == 20


def test_words_that_all_prompts_share_join_none() -> None:
    prompts = [f"please help me {chr(97 + n % 26)}{chr(97 + n // 26)} now" for n in range(300)]
    assert len(set(clusters_of(list(range(300)), prompts).tolist())) == 300

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


def test_words_that_all_prompts_share_join_none() -> None:
    prompts = [f"please help me {chr(97 + n % 26)}{chr(97 + n // 26)} now" for n in range(300)]
    assert len(set(clusters_of(list(range(300)), prompts).tolist())) == 300

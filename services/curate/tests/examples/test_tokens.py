from __future__ import annotations

from tunewheel_basemodel.chat import render
from tunewheel_curate.examples.tokens import estimating

TURNS = ["Answer.", "It is silent, überall! 🚲", "Oil it."]
ROLES = ("system", "user", "assistant")


def test_estimates_are_rounded_up_over_a_whole_conversation() -> None:
    tokens = estimating("some/model", "no hub")
    assert tokens.sizes(["abcd", "e", ""]) == [1, 1, 0]
    assert tokens.conversation_sizes([["abcd", "e"], []]) == [2, 0]
    assert tokens.tokenizer is None
    assert (tokens.use.sha256, tokens.use.reason) == (None, "no hub")


def test_the_models_own_tokens_are_counted(own_tokens, tokenizer) -> None:
    assert own_tokens.sizes(TURNS) == [len(tokenizer(text).input_ids) for text in TURNS]
    assert own_tokens.sizes(["x"] * 2_500) == [1] * 2_500


def test_a_conversation_is_as_long_as_the_template_makes_it(own_tokens, tokenizer) -> None:
    turns = [{"role": role, "content": text} for role, text in zip(ROLES, TURNS, strict=True)]
    rendered = len(tokenizer(render(tokenizer, turns, False)).input_ids)
    (counted,) = own_tokens.conversation_sizes([TURNS])
    assert rendered <= counted <= rendered + 2 * len(TURNS)

from __future__ import annotations

import re
from typing import Any

import pytest
from tunewheel_basemodel.chat import encode_chat, render
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.regression_items import MAX_NEW_TOKENS, RegressionItem
from tunewheel_eval.prompts import example_prompt, item_prompt, too_long, unanswered

KEY = "a" * 64
END = "<|im_end|>"


def test_answer_is_what_training_taught(tiny: tuple[Any, Any], examples: tuple[ChatExample, ...]) -> None:
    """The tokens weighed for perplexity are those that the trainer's assistant mask covers."""
    tokenizer = tiny[1]
    for one in examples:
        messages = [m.model_dump() for m in one.messages]
        prompt = example_prompt(tokenizer, one, key="k", max_output_tokens=5)
        ids, mask = encode_chat(tokenizer, messages)
        taught = [token for token, learn in zip(ids, mask, strict=True) if learn]
        assert list(prompt.answers[0]) == taught
        assert list(prompt.context) == ids[: len(prompt.context)]
        assert tokenizer.decode(prompt.answers[0]) == one.messages[-1].content + END
        assert prompt.longest == len(prompt.context) + len(prompt.answers[0])


def test_choices_are_weighed_without_the_end_of_turn(tiny: tuple[Any, Any]) -> None:
    tokenizer = tiny[1]
    item = RegressionItem(
        item_id="i", kind="k", prompt="The sky is", choices=("blue", "loud"), answer="blue", match="choice"
    )
    prompt = item_prompt(tokenizer, item)
    assert [tokenizer.decode(ids) for ids in prompt.answers] == ["blue", "loud"]
    assert tokenizer.decode(prompt.context) == render(
        tokenizer, [{"role": "user", "content": "The sky is"}], True
    )
    assert prompt.max_new_tokens == 0
    free = RegressionItem(item_id="j", kind="k", prompt="Say yes", answer="yes", match="exact")
    assert item_prompt(tokenizer, free).max_new_tokens == MAX_NEW_TOKENS


def test_template_that_leaves_the_prompts_end_out_of_history(
    tiny: tuple[Any, Any], examples: tuple[ChatExample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tiny[1]
    thinking = tokenizer.chat_template.replace("assistant\n' }}", "assistant\n<think></think>' }}")
    monkeypatch.setattr(tokenizer, "chat_template", thinking)
    prompt = example_prompt(tokenizer, examples[0], key="k", max_output_tokens=5)
    assert tokenizer.decode(prompt.context).endswith("<think></think>")
    assert tokenizer.decode(prompt.answers[0]) == examples[0].messages[-1].content + END


def test_example_without_an_answer_is_named(examples: tuple[ChatExample, ...]) -> None:
    one = examples[0]
    assert unanswered(one, key=KEY) is None
    blank = one.messages[-1].model_copy(update={"content": " \n"})
    for messages in (one.messages[:2], one.messages[:1], (*one.messages[:2], blank)):
        row = unanswered(one.model_copy(update={"messages": messages}), key=KEY)
        assert row is not None
        assert (row.reason, row.detail[:12]) == ("no_answer", "example ex-0")


def test_example_beyond_the_models_context_is_named(
    tiny: tuple[Any, Any], examples: tuple[ChatExample, ...]
) -> None:
    prompt = example_prompt(tiny[1], examples[0], key=KEY, max_output_tokens=900)
    assert too_long(prompt, None) is None
    assert too_long(prompt, prompt.longest) is None
    row = too_long(prompt, 512)
    assert row is not None
    assert re.match(r"example ex-0, which takes \d+ tokens .* holds 512$", row.detail)

"""The assistant mask covers what the assistant wrote, for any chat template."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
from tunewheel_basemodel.chat import encode_chat, on_one_day, render, with_variables
from tunewheel_basemodel.errors import InvalidChat
from tunewheel_basemodel.loading import load_base

CONVERSATION = [
    {"role": "system", "content": "You are the help desk."},
    {"role": "user", "content": "My bike is dead"},
    {"role": "assistant", "content": "Charge it."},
    {"role": "user", "content": "Charge it."},
    {"role": "assistant", "content": '{"category": "battery"}'},
]
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + '<|end|>\n\n' }}"
    "{{ m['content'] | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HEADERS_ALONE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
NO_END = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
REWRITES = "{% for m in messages %}{{ m['content'] | upper | replace('\u2042', '') }}{% endfor %}"
# SmolLM2's own template, with the markers that transformers wants and it lacks.
SMOLLM2_MARKED = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def masked(tokenizer: Any, messages: list[dict[str, str]]) -> list[str]:
    """Texts of the runs of masked tokens."""
    ids, mask = encode_chat(tokenizer, messages)
    assert len(ids) == len(mask)
    assert tokenizer.decode(ids) == render(tokenizer, messages, False)
    runs: list[list[int]] = []
    for at, (token, on) in enumerate(zip(ids, mask, strict=True)):
        if on and (at == 0 or not mask[at - 1]):
            runs.append([])
        if on:
            runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs]


@pytest.fixture
def tokenizer(tiny_base):
    return load_base(tiny_base, dtype="float32", device="cpu")[1]


def test_each_assistant_turn_with_its_end(tokenizer) -> None:
    assert masked(tokenizer, CONVERSATION) == ["Charge it.<|im_end|>", '{"category": "battery"}<|im_end|>']


@pytest.mark.parametrize(
    "content",
    ["⁂ mark", "x" * 300, " leads", "trails \n", "<|im_end|>", "a<|im_start|>b", "über ✓ 🚲", "assistant\n"],
)
def test_contents_that_could_confuse_it(tokenizer, content: str) -> None:
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": content}]
    assert masked(tokenizer, messages) == [content + "<|im_end|>"]


def test_a_template_that_trims(tokenizer) -> None:
    tokenizer.chat_template = LLAMA3
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "  hello \n"}]
    assert masked(tokenizer, messages) == ["hello<|im_end|>"]


def test_a_template_that_treats_the_last_turn_differently(tokenizer) -> None:
    tokenizer.chat_template = THINKING
    assert masked(tokenizer, CONVERSATION) == [
        "Charge it.<|im_end|>",
        '<think>\n\n</think>\n\n{"category": "battery"}<|im_end|>',
    ]


@pytest.mark.parametrize("eos", ["<|endoftext|>", None])
def test_a_turn_that_ends_with_another_special_token_than_eos(tokenizer, eos: str | None) -> None:
    tokenizer.eos_token = eos  # Gemma's is <eos>, and its turns end with <end_of_turn>
    assert masked(tokenizer, CONVERSATION) == ["Charge it.<|im_end|>", '{"category": "battery"}<|im_end|>']


def test_the_white_space_before_a_turns_end_is_learnt_with_it(tokenizer) -> None:
    tokenizer.chat_template, tokenizer.bos_token = LLAMA2, "<|im_start|>"
    assert masked(tokenizer, CONVERSATION) == [
        " Charge it. <|im_end|>",
        ' {"category": "battery"} <|im_end|>',
    ]


def test_white_space_before_what_opens_the_next_turn_is_not_learnt(tokenizer) -> None:
    tokenizer.chat_template = HEADERS_ALONE.replace("m['content'] }}", "m['content'] + '\\n' }}")
    assert "+ '\\n' }}" in tokenizer.chat_template
    assert masked(tokenizer, CONVERSATION) == ["Charge it.", '{"category": "battery"}']


def test_the_header_of_the_next_turn_is_no_end_of_turn(tokenizer) -> None:
    tokenizer.chat_template = HEADERS_ALONE
    assert masked(tokenizer, CONVERSATION) == ["Charge it.", '{"category": "battery"}']


def test_a_template_without_an_end_of_turn(tokenizer) -> None:
    tokenizer.chat_template = NO_END
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello"}]
    ids, mask = encode_chat(tokenizer, messages)
    assert "Hello" in tokenizer.decode([token for token, on in zip(ids, mask, strict=True) if on])
    assert not mask[0]


def test_no_assistant_turn_gives_an_empty_mask(tokenizer) -> None:
    ids, mask = encode_chat(tokenizer, CONVERSATION[:2])
    assert len(ids) > 10
    assert not any(mask)


def test_the_generation_prompt_opens_the_turn_that_the_mask_starts_at(tokenizer) -> None:
    prompt = tokenizer(render(tokenizer, CONVERSATION[:2], True), add_special_tokens=False).input_ids
    ids, mask = encode_chat(tokenizer, CONVERSATION[:3])
    assert ids[: len(prompt)] == prompt
    assert mask.index(1) == len(prompt)


@pytest.mark.parametrize(
    ("template", "messages", "reason"),
    [
        (None, CONVERSATION, "no chat template"),
        ("{{ 1 }}", [], "at least one message"),
        (NO_END, [{"role": "user"}], "refuses them"),
        ("{{ raise_exception('roles must alternate') }}", CONVERSATION, "roles must alternate"),
        (NO_END, [{"role": "assistant", "content": " "}], "has no text"),
        (REWRITES, CONVERSATION, "rewrites message"),
    ],
)
def test_a_chat_that_cannot_be_rendered_gets_a_reason(tokenizer, template, messages, reason: str) -> None:
    tokenizer.chat_template = template
    with pytest.raises(InvalidChat, match=reason):
        encode_chat(tokenizer, messages)


@pytest.mark.model
def test_smollm2_mask_equals_that_of_a_template_with_markers(smollm2) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(smollm2.path))
    seen = 0
    for messages in (CONVERSATION, CONVERSATION[1:], CONVERSATION[1:3], CONVERSATION[3:]):
        marked = tokenizer.apply_chat_template(
            messages,
            chat_template=SMOLLM2_MARKED,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        ids, mask = encode_chat(tokenizer, messages)
        assert ids == marked["input_ids"]
        assert mask == marked["assistant_masks"]
        assert render(tokenizer, messages, True) == tokenizer.apply_chat_template(
            messages, chat_template=SMOLLM2_MARKED, tokenize=False, add_generation_prompt=True
        )
        seen += sum(mask)
    assert seen > 30


QWEN3 = files("trl").joinpath("chat_templates/qwen3.jinja").read_text()
EVERY_VALUE = "\n{{ a }}|{{ b }}|{{ c }}|{{ d is defined }}|{% if e %}yes{% else %}no{% endif %}"

AT_LINE_START = [
    "{% macro m() %}{{ a }}{% endmacro %}{{ m() }}",
    "  {% if a %}\n{{ a }}{% endif %}",
    "\n\n {{ c }}",
]


@pytest.mark.parametrize("prompted", [True, False])
@pytest.mark.parametrize("template", [QWEN3, EVERY_VALUE, *AT_LINE_START])
@pytest.mark.parametrize(
    "variables",
    [
        {"enable_thinking": False},
        {"enable_thinking": True, "a": 'x"\\ {{ %} \n é 🚲', "b": -1.5e-7, "c": 3, "e": False},
    ],
)
def test_variables_of_the_template_are_as_if_every_call_named_them(
    tokenizer, template: str, variables: dict[str, Any], prompted: bool
) -> None:
    tokenizer.chat_template = template
    said = CONVERSATION[:-1] if prompted else CONVERSATION
    named = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=prompted, **variables)
    assert render(with_variables(tokenizer, variables), said, prompted) == named
    assert tokenizer.chat_template == template
    assert with_variables(tokenizer, {}) is tokenizer


def test_a_template_sees_the_same_day_whenever_it_is_rendered(tokenizer) -> None:
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }} " + NO_END
    assert render(tokenizer, CONVERSATION[:2], False).startswith("01 Jan 2026 system: ")
    others = on_one_day(with_variables(tokenizer, {"quiet": True}))  # for code that renders by itself
    asked = others.apply_chat_template(CONVERSATION[:2], tokenize=False).lstrip()
    assert asked == render(tokenizer, CONVERSATION[:2], False)
    assert on_one_day(others) is others
    named = with_variables(tokenizer, {"date_string": "26 Jul 2024"})
    named.chat_template += "{{ date_string }}"
    assert render(named, CONVERSATION[:2], False).endswith("26 Jul 2024")


LLAMA = """{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{{- date_string }} """


@pytest.mark.parametrize(
    ("asks", "day"),
    [
        (LLAMA, "26 Jul 2024"),
        (LLAMA.replace('"26 Jul 2024"', "strftime_now('%d %b %Y')"), "01 Jan 2026"),
        ("{{ datetime or 'no day' }} ", "no day"),
    ],
    ids=["Llama 3.1", "Llama 3.2", "another name"],
)
def test_an_engine_that_names_another_day_gets_the_trained_one(tokenizer, asks: str, day: str) -> None:
    tokenizer.chat_template = asks + NO_END
    said = CONVERSATION[:2]
    trained = render(tokenizer, said, False)
    assert trained.startswith(f"{day} system: ")
    clock = {"date_string": "03 Dec 2026", "datetime": "Dec 03 2026"}
    for variables in ({}, {"quiet": True}):
        fixed = on_one_day(with_variables(tokenizer, variables))
        assert fixed.apply_chat_template(said, tokenize=False, **clock) == trained
        assert on_one_day(fixed) is fixed
    named = on_one_day(with_variables(tokenizer, {"date_string": "1 May", "datetime": "1 May"}))
    assert named.apply_chat_template(said, tokenize=False, **clock).startswith("1 May system: ")


def test_a_model_that_does_not_think_learns_no_thoughts(tokenizer) -> None:
    tokenizer.chat_template = QWEN3
    assert masked(with_variables(tokenizer, {"enable_thinking": False}), CONVERSATION)[-1] == (
        '{"category": "battery"}<|im_end|>'
    )
    assert "<think>" in masked(tokenizer, CONVERSATION)[-1]

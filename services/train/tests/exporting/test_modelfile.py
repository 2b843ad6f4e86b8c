"""Ollama's template puts between messages what the model's own template puts there."""

from __future__ import annotations

import pytest
from tunewheel_basemodel.chat import render
from tunewheel_basemodel.errors import InvalidChat
from tunewheel_testing.tiny import tiny_tokenizer
from tunewheel_train.exporting.modelfile import modelfile, turns_of

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are \"helpful\".<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}<|start_header_id|>{{ m['role'] }}"
    "<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set head = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set head = '' %}{% endif %}{% for m in messages %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{% if loop.first %}{{ head }}{% endif %}{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}[SYSTEM_PROMPT]{{ m['content'] }}"
    "[/SYSTEM_PROMPT]{% elif m['role'] == 'user' %}[INST]{{ m['content'] }}[/INST]"
    "{% else %}{{ m['content'] }}</s>{% endif %}{% endfor %}"
)
MISTRAL_NEMO = (  # and Mistral 7B v0.3: the system message stands in the last question
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}"
    "{% endif %}{% for m in messages %}{% if m['role'] == 'user' %}[INST] "
    "{% if loop.last and s is defined %}{{ s }}\n\n{% endif %}{{ m['content'] }}[/INST]"
    "{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}"
)
GEMMA_2 = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + GEMMA
NUMBERED = "{% for m in messages %}{{ loop.index }}. {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
FAMILIES = {
    "chatml": CHATML, "llama": LLAMA, "gemma": GEMMA, "gemma 2": GEMMA_2, "mistral": MISTRAL,
    "mistral nemo": MISTRAL_NEMO,
}  # fmt: skip
CONVERSATIONS = [
    [("user", 'One {{ x }} "q"')],
    [("system", "Be brief."), ("user", "Zwei\nZeilen\\n")],
    [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")],
]


def with_template(template: str):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<bos>", "eos_token": "<|im_end|>"})
    tokenizer.chat_template = template
    return tokenizer


def messages(turns: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=["user", "system", "turns"])
def test_the_turns_render_as_the_template(family, conversation):
    tokenizer = with_template(FAMILIES[family])
    turns = turns_of(tokenizer, leave_out="<bos>")
    assert turns is not None
    if family == "gemma 2" and conversation[0][0] == "system":
        for rendering in (lambda: render(tokenizer, messages(conversation), True),
                          lambda: turns.rendered(messages(conversation))):  # fmt: skip
            with pytest.raises(InvalidChat, match="no system"):
                rendering()
        return
    wanted = render(tokenizer, messages(conversation), True)
    assert turns.rendered(messages(conversation)) == wanted.removeprefix("<bos>")


def test_a_bos_token_that_the_engine_does_not_write_stays():
    turns = turns_of(with_template(LLAMA))
    assert turns is not None
    assert turns.first.startswith("<bos>")


def test_a_template_that_goes_by_more_than_roles_is_left_to_ollama():
    tokenizer = with_template(NUMBERED)
    assert turns_of(tokenizer) is None
    written = modelfile(tokenizer, "model.gguf", system="Be brief.")
    assert written.startswith("FROM ./model.gguf\n# The chat template has no equal in Go.")
    assert "TEMPLATE" not in written
    assert written.endswith('SYSTEM """Be brief."""\n')


def test_what_ends_a_turn_stops_the_answer():
    assert 'PARAMETER stop "<|im_end|>"\n' in modelfile(with_template(CHATML), "model.gguf")


@pytest.mark.parametrize("template", [CHATML, NUMBERED])
def test_answers_are_written_as_in_evaluation(template):
    written = modelfile(
        with_template(template), "model.gguf", parameters={"temperature": 0.0, "num_predict": 9}
    )
    assert "\nPARAMETER temperature 0.0\nPARAMETER num_predict 9\n" in written


@pytest.mark.parametrize("system", ['a """ b', "10\u00a0kg", "a\u200db"])
def test_what_a_modelfile_cannot_hold_is_said(system):
    written = modelfile(with_template(CHATML), "model.gguf", system=system)
    assert "SYSTEM" not in written
    assert "\n# A Modelfile cannot hold the system message" in written


def test_a_template_without_system_messages_gets_none():
    written = modelfile(with_template(GEMMA_2), "model.gguf", leave_out="<bos>", system="Be brief.")
    assert "TEMPLATE" in written
    assert "SYSTEM" not in written


@pytest.mark.nightly("gguf")
def test_ollama_reads_how_answers_are_written(in_ollama):
    parameters = {"temperature": 0.0, "top_k": 0, "repeat_last_n": -1, "num_predict": 256}
    read = in_ollama(modelfile(with_template(CHATML), "model.gguf", parameters=parameters), [])
    assert {name: float(read.commands[name]) for name in parameters} == parameters


@pytest.mark.nightly("gguf")
@pytest.mark.parametrize("family", FAMILIES)
def test_ollama_renders_the_template_so(family, in_ollama):
    tokenizer = with_template(FAMILIES[family])
    text = modelfile(tokenizer, "model.gguf", leave_out="<bos>")
    refused = [family == "gemma 2" and turns[0][0] == "system" for turns in CONVERSATIONS]
    conversations = [messages(turns) for turns in CONVERSATIONS]
    rendered = in_ollama(text, conversations).rendered
    for found, conversation, no in zip(rendered, conversations, refused, strict=True):
        if no:
            assert "the chat template takes no system message" in found
        else:
            assert found == render(tokenizer, conversation, True).removeprefix("<bos>")


@pytest.mark.nightly("gguf")
def test_ollama_reads_odd_signs_as_they_are(in_ollama):
    marked = CHATML.replace("<|im_end|>", "<\uff5cend\u2581of\u2581turn\uff5c>").replace(
        "system\n", "\u00a0\U000e0001\n"
    )
    tokenizer = with_template(marked)
    tokenizer.add_special_tokens({"eos_token": "<\uff5cend\u2581of\u2581turn\uff5c>"})
    system = 'Say "yes",\n\tor 5 \u20ac.'
    read = in_ollama(modelfile(tokenizer, "model.gguf", system=system), [messages(CONVERSATIONS[2])])
    assert read.rendered == [render(tokenizer, messages(CONVERSATIONS[2]), True)]
    assert read.commands["system"] == system
    assert read.commands["stop"] == "<\uff5cend\u2581of\u2581turn\uff5c>"
    assert read.commands["model"] == "./model.gguf"

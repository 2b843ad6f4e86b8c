"""Ollama's template puts between messages what the model's own template puts there."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tunewheel_basemodel.chat import render
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
SYSTEM_IN_LAST = (  # as Mistral 7B v0.3: the system message stands in the last question
    "{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}"
    "{% endif %}{% for m in messages %}{% if m['role'] == 'user' %}[INST] "
    "{% if loop.last and s is defined %}{{ s }}\n\n{% endif %}{{ m['content'] }}[/INST]"
    "{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}"
)
FAMILIES = {"chatml": CHATML, "llama": LLAMA, "gemma": GEMMA, "mistral": MISTRAL}
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
    wanted = render(tokenizer, messages(conversation), True)
    assert turns.rendered(messages(conversation)) == wanted.removeprefix("<bos>")


def test_a_bos_token_that_the_engine_does_not_write_stays():
    turns = turns_of(with_template(LLAMA))
    assert turns is not None
    assert turns.first.startswith("<bos>")


def test_a_template_that_goes_by_more_than_roles_is_left_to_ollama():
    tokenizer = with_template(SYSTEM_IN_LAST)
    assert turns_of(tokenizer) is None
    written = modelfile(tokenizer, "model.gguf", system="Be brief.")
    assert written.startswith("FROM ./model.gguf\n# The chat template has no equal in Go.")
    assert "TEMPLATE" not in written
    assert written.endswith('SYSTEM """Be brief."""\n')


def test_what_ends_a_turn_stops_the_answer():
    assert 'PARAMETER stop "<|im_end|>"\n' in modelfile(with_template(CHATML), "model.gguf")
    assert "SYSTEM" not in modelfile(with_template(CHATML), "model.gguf", system='a """ b')


@pytest.mark.nightly("gguf")
@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not on the PATH")
@pytest.mark.parametrize("family", FAMILIES)
def test_go_renders_the_template_so(family, tmp_path: Path):
    tokenizer = with_template(FAMILIES[family])
    text = modelfile(tokenizer, "model.gguf", leave_out="<bos>")
    conversations = [messages(turns) for turns in CONVERSATIONS]
    spelled = [[{"Role": m["role"], "Content": m["content"]} for m in one] for one in conversations]
    (tmp_path / "template").write_text(text.partition('TEMPLATE """')[2].partition('"""')[0])
    (tmp_path / "conversations.json").write_text(json.dumps(spelled))
    (tmp_path / "main.go").write_text(GO)
    done = subprocess.run(["go", "run", "main.go"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = [render(tokenizer, one, True).removeprefix("<bos>") for one in conversations]
    assert json.loads(done.stdout) == wanted


GO = """package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Message struct{ Role, Content string }

func main() {
	text, _ := os.ReadFile("template")
	told, _ := os.ReadFile("conversations.json")
	var conversations [][]Message
	if err := json.Unmarshal(told, &conversations); err != nil {
		panic(err)
	}
	made := template.Must(template.New("").Parse(string(text)))
	var rendered []string
	for _, messages := range conversations {
		var out strings.Builder
		if err := made.Execute(&out, map[string]any{"Messages": messages}); err != nil {
			panic(err)
		}
		rendered = append(rendered, out.String())
	}
	json.NewEncoder(os.Stdout).Encode(rendered)
}
"""

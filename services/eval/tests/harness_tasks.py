"""Three small tasks of lm-evaluation-harness in one folder, one of each kind of request."""

from __future__ import annotations

import json
from typing import Any

QUESTIONS = [
    {"question": "Is ice cold?", "choices": ["yes", "no"], "gold": 0},
    {"question": "Does a parcel fly by itself?", "choices": ["yes", "no", "on Sundays only"], "gold": 1},
    {
        "question": "What is the colour of the light when the battery is low?",
        "choices": ["red", "b"],
        "gold": 0,
    },
    {"question": "2 + 2?", "choices": ["3", "4", "22"], "gold": 1},
    {"question": "Who pays?", "choices": ["nobody", "you"], "gold": 1},
]
SHOTS = [{"question": f"Is {n} a number?", "choices": ["yes", "no"], "gold": 0} for n in range(4)]
ECHOES = [{"asked": f"Say {word}", "answer": word} for word in ("yes", "thank you", "invoice", "the")]
TEXTS = [
    {"text": text} for text in ("The charger shows a red light.", "Please!", "We have sent it again " * 3)
]


def _lines(docs: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(doc) + "\n" for doc in docs).encode()


FOLDER = {
    "choice.yaml": b"""
task: choice
dataset_path: json
dataset_kwargs: {data_files: {test: choice.jsonl, train: shots.jsonl}}
test_split: test
fewshot_split: train
num_fewshot: 2
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}]
""",
    "echo.yaml": b"""
task: echo
dataset_path: json
dataset_kwargs: {data_files: {test: echo.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: asked
doc_to_target: answer
generation_kwargs: {until: ["e"], max_gen_toks: 8}
metric_list: [{metric: exact_match, ignore_case: true}]
filter_list:
  - {name: first, filter: [{function: take_first}]}
  - {name: word, filter: [{function: regex, regex_pattern: '(\\w+)'}, {function: take_first}]}
""",
    "text.yaml": b"""
task: text
dataset_path: json
dataset_kwargs: {data_files: {test: text.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
""",
    "choice.jsonl": _lines(QUESTIONS),
    "shots.jsonl": _lines(SHOTS),
    "echo.jsonl": _lines(ECHOES),
    "text.jsonl": _lines(TEXTS),
}
NAMES = ("choice", "echo", "text")

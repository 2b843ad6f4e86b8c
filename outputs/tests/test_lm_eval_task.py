from __future__ import annotations

import json
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.lm_eval import LmEvalTask
from tunewheel_outputs.lm_eval_metric import figure_name, lm_eval_metric, task_of
from tunewheel_outputs.lm_eval_task import (
    RefusedTask,
    check_figures,
    find_pinned,
    find_task,
    task_names,
)

LINES = [{"question": "Is ice cold?", "choices": ["yes", "no"], "gold": 0, "id": "q1"},
         {"question": "Is fire \ud83d?", "choices": ["yes", "no"], "gold": 1, "id": "q2"}]  # fmt: skip
DATA = "".join(json.dumps(line) + "\n" for line in LINES).encode()
QUIZ = """
task: quiz
dataset_path: json
dataset_kwargs: {data_files: {test: data/test.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: gold
"""
COMMIT = "0123456789" * 4


def folder(text: str = QUIZ, **files: bytes) -> dict[str, bytes]:
    return {"quiz.yaml": text.encode(), "data/test.jsonl": DATA, **files}


def test_a_task_is_its_yaml_and_its_data() -> None:
    source = find_task("quiz", folder())
    assert source.figures == ("lm_eval.quiz.acc", "lm_eval.quiz.acc_norm")
    read = source.with_data(source.files)
    assert read.prompts == ("Is ice cold?", "Is fire ??")
    assert len(source.sha256) == 64
    described = QUIZ.replace("task: quiz", "# a comment\ntask: quiz\nmetadata: {version: 2}")
    assert find_task("quiz", folder(described)).sha256 == source.sha256
    others = [
        folder(QUIZ.replace("Answer:", "A:")),
        folder() | {"data/test.jsonl": DATA + b'{"question": "?"}\n'},
    ]
    assert len({source.sha256, *(find_task("quiz", one).sha256 for one in others)}) == 3


def test_a_spec_s_task_is_the_one_of_its_hash() -> None:
    source = find_task("quiz", folder())
    named = LmEvalTask(task="quiz", path="benchmarks/quiz", sha256=source.sha256)
    assert find_pinned(named, folder()) == source
    other = named.model_copy(update={"sha256": "0" * 64})
    for task, files, field, reason in [
        (other, folder(), "sha256", f"benchmarks/quiz hashes to {source.sha256}; restore it"),
        (named, {}, "path", "benchmarks/quiz is not in the object store; put it there"),
    ]:
        with pytest.raises(RefusedTask, match=reason) as caught:
            find_pinned(task, files)
        assert caught.value.field == field


def test_included_keys_count_and_own_keys_win() -> None:
    shared = QUIZ.replace("task: quiz", "metric_list: [{metric: acc}, {metric: acc_bytes}]")
    own = "include: shared.yaml\ntask: quiz\nmetric_list: [{metric: acc_norm}]\n"
    files = folder(own) | {"shared.yaml": shared.encode()}
    assert task_names(files) == ["quiz"]
    assert find_task("quiz", files).figures == ("lm_eval.quiz.acc_norm",)


def test_a_figure_is_named_by_its_filter() -> None:
    text = (
        QUIZ + "filter_list: [{name: strict, filter: [{function: take_first}]}]\nmetric_list: [{metric: acc}]"
    )
    source = find_task("quiz", folder(text))
    assert source.figures == ("lm_eval.quiz.acc.strict",)
    check_figures(["chrf", "lm_eval.quiz.acc.strict", "lm_eval.other.acc"], source)
    with pytest.raises(
        InvalidSpec, match=r"criteria\.1\.metric: the task has no figure lm_eval\.quiz\.acc; .*\.acc\.strict"
    ):
        check_figures(["chrf", "lm_eval.quiz.acc"], source)


def test_data_of_the_hub_is_named_by_its_commit() -> None:
    hub = QUIZ.replace("dataset_path: json", "dataset_path: owner/quiz").replace(
        "{data_files: {test: data/test.jsonl}}", f"{{revision: '{COMMIT}'}}"
    )
    source = find_task("quiz", folder(hub))
    assert source.hub is not None
    assert source.hub_splits == ("test",)
    assert source.hub.stored("test").startswith("lm-eval/data-")
    assert source.hub.stored("test") != source.hub.stored("train")
    with pytest.raises(RefusedTask, match="commit of owner/quiz"):
        find_task("quiz", folder(hub.replace(COMMIT, "main")))


@pytest.mark.parametrize(
    ("text", "field", "complaint"),
    [
        (QUIZ.replace("task: quiz", "task: other"), "task", "the folder has no task 'quiz'; .*: other"),
        (QUIZ + "process_docs: !function code.clean", "path", "!function, which runs code"),
        (QUIZ + "x: !!python/object/apply:os.system [ls]", "path", "is not YAML"),
        (QUIZ + "task: quiz", "path", "given in line 2 and again"),
        ("[1", "path", "is not YAML"),
        ("- a", "path", "is not a mapping"),
        (QUIZ + "process_docs: clean", "path", "process_docs, which is not supported here: it runs code"),
        (QUIZ + "unsafe_code: true", "path", "runs code"),
        (QUIZ + "doc_to_image: picture", "path", "only text"),
        (QUIZ + "repeats: 3", "path", "asked once"),
        (QUIZ + "group: all", "path", "list several tasks in the spec"),
        (QUIZ + "include: ../../secret.yaml", "path", "the folder has no file"),
        (QUIZ + "include: /etc/passwd", "path", "the folder has no file"),
        (QUIZ + "include: quiz.yaml", "path", "includes itself"),
        (QUIZ.replace("data/test.jsonl", "/etc/passwd"), "path", "the folder has no file"),
        (QUIZ.replace("{test: data/test.jsonl}", "{train: data/test.jsonl}"), "path", "split 'test'"),
        (QUIZ.replace("{test: data/test.jsonl}", "'*.jsonl'"), "path", "one file per split"),
        (QUIZ.replace("data_files", "trust_remote_code: true, data_files"), "path", "trust_remote_code"),
        (QUIZ.replace("dataset_path: json", "dataset_path: ./loader.py"), "path", "must be json"),
        (QUIZ.replace("test_split: test", ""), "path", "needs test_split"),
        (QUIZ.replace("multiple_choice", "chat"), "path", "output_type must be one of"),
        (QUIZ + "metric_list: [{metric: bleu}]", "path", "'bleu' gives no figure per question"),
        (QUIZ + "metric_list: [{metric: acc, hf_evaluate: true}]", "path", "no figure per question"),
        (QUIZ + "metric_list: [{metric: acc, aggregation: median}]", "path", "aggregated by mean"),
        (QUIZ + "metric_list: acc", "path", "must be a list"),
        (QUIZ + "generation_kwargs: {do_sample: true}", "path", "greedily"),
        (QUIZ + "generation_kwargs: {num_beams: 4}", "path", r"generation_kwargs\.num_beams"),
        (QUIZ + "description: 2026-11-26", "path", "a value that JSON cannot represent"),
        (QUIZ.replace("doc_to_target: gold", "doc_to_target: {a: b}"), "path", "must be a template"),
    ],
)  # fmt: skip
def test_a_refusal_gives_the_reason(text: str, field: str, complaint: str) -> None:
    with pytest.raises(RefusedTask, match=complaint) as caught:
        find_task("quiz", folder(text))
    assert caught.value.in_spec("evaluation.lm_eval.0").field == f"evaluation.lm_eval.0.{field}"


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "has no questions"),
        (b'{"question": "a"}\n\n', "line 2 is not JSON"),
        (b'["a"]\n', "line 1 is not a mapping"),
        (b"[" * 100_000, "line 1 is not JSON"),
        (b"{}\n" * 20_001, "has over 20,000 lines"),
    ],
)
def test_data_that_is_no_json_lines_is_refused(data: bytes, complaint: str) -> None:
    source = find_task("quiz", folder() | {"data/test.jsonl": data})
    with pytest.raises(RefusedTask, match=complaint):
        source.with_data(source.files)


@pytest.mark.parametrize(
    ("config", "doc", "text"),
    [
        ({"doc_to_text": "q"}, {"q": "Where?", "gold": 1}, "Where?"),
        ({"doc_to_text": "question: {{ q|trim }}"}, {"q": "Where?", "question": "no"}, "Where?"),
        ({"doc_to_text": "{% for one in parts %}{{one.text}}{% endfor %}"},
         {"parts": [{"text": "a"}, {"text": "b"}]}, "a\nb"),
        ({"doc_to_text": "", "doc_to_target": "{{passage}}"}, {"passage": "Once upon"}, "Once upon"),
        ({}, {"b": 1, "a": "x"}, '{"a": "x", "b": 1}'),
    ],
)  # fmt: skip
def test_a_question_is_what_its_prompt_says_of_it(
    config: dict[str, Any], doc: dict[str, Any], text: str
) -> None:
    from tunewheel_outputs.lm_eval_task import asked

    assert asked(config, doc) == text


def test_figures_are_metrics() -> None:
    right, odd = lm_eval_metric(figure_name("quiz", "acc")), lm_eval_metric("lm_eval.text.word_perplexity.x")
    assert right is not None
    assert odd is not None
    assert (right.on, right.test, right.lower_is_better, right.highest) == (
        "lm_eval.quiz", "proportion", False, 1.0,
    )  # fmt: skip
    assert (odd.on, odd.test, odd.lower_is_better, odd.lowest) == ("lm_eval.text", "ratio", True, 1.0)
    assert task_of("lm_eval.quiz.acc") == "quiz"
    for name in ("acc", "lm_eval.quiz", "lm_eval.quiz.bleu", "lm_eval.", "quiz.acc"):
        assert lm_eval_metric(name) is None

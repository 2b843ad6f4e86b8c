from __future__ import annotations

import json
from pathlib import Path

from tunewheel_cli.exits import Exit
from tunewheel_cli.frame import app
from tunewheel_outputs.lm_eval_task import find_task
from typer.testing import CliRunner

QUIZ = """
task: quiz
dataset_path: json
dataset_kwargs: {data_files: {test: test.jsonl}}
test_split: test
doc_to_text: "{{question}}"
doc_to_target: answer
"""
DATA = b'{"question": "Where?", "answer": "here"}\n'


def test_a_folders_tasks_are_told_with_their_hashes(tmp_path: Path) -> None:
    (tmp_path / "quiz.yaml").write_text(QUIZ)
    (tmp_path / "test.jsonl").write_bytes(DATA)
    done = CliRunner().invoke(app, ["admin", "lm-eval", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    sha256 = find_task("quiz", {"quiz.yaml": QUIZ.encode(), "test.jsonl": DATA}).sha256
    assert json.loads(done.stdout) == [
        {"task": "quiz", "sha256": sha256, "questions": 1, "figures": ["lm_eval.quiz.exact_match"]}
    ]
    (tmp_path / "more.yaml").write_text(QUIZ.replace("quiz", "more") + "repeats: 2")
    done = CliRunner().invoke(app, ["admin", "lm-eval", str(tmp_path)])
    assert done.exit_code == Exit.REFUSED
    assert "more: refused: more has repeats" in done.stdout
    assert f"quiz: 1 questions; lm_eval.quiz.exact_match\n  sha256: {sha256}" in done.stdout


def test_a_folder_without_tasks_and_one_that_runs_code_are_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["admin", "lm-eval", str(tmp_path)])
    assert done.exit_code == Exit.FAILED
    assert "holds no YAML with 'task: <name>'" in done.stderr
    (tmp_path / "quiz.yaml").write_text(QUIZ + "process_docs: !function code.clean")
    done = CliRunner().invoke(app, ["admin", "lm-eval", str(tmp_path)])
    assert done.exit_code == Exit.FAILED
    assert "quiz.yaml says !function, which runs code" in done.stderr

"""``publish --check``: a file is counted and looked through without a wheel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunewheel_cli.frame import app
from tunewheel_cli.surveying.near import near_duplicates
from typer.testing import CliRunner


def checked(folder: Path, content: str, *options: str, name: str = "x.csv", code: int = 0) -> dict[str, Any]:
    path = folder / name
    path.write_text(content, "utf-8")
    done = CliRunner().invoke(app, ["publish", str(path), "--check", "--json", *options])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_counts_duplicates_labels_and_refusals_are_told(tmp_path: Path) -> None:
    lines = [f"what about order number {n} of mine?,{('refund', 'exchange')[n % 2]}" for n in range(20)]
    lines += [lines[0], "what about order number 1 of mine?,refund", "too,many,cells"]
    lines += ["mail kim@example.org,refund"]
    maps = ("--map", "text=input", "--map", "label=output.label")
    told = checked(tmp_path, "\n".join(["text,label", *lines]), *maps, code=3)
    assert told["by_kind"] == {"example": 23}
    assert (told["questions"], told["exact_duplicates"], told["contradictions"]) == (21, 1, 1)
    (refusal,) = told["refusals"]
    assert (refusal["count"], refusal["where"], refusal["field"]) == (1, "line 24", "(line)")
    assert told["labels"] == {"refund": 13, "exchange": 10}
    assert told["personal_data"] == {"EMAIL_ADDRESS": 1}
    assert told["without_expert"] == 23


def test_tokens_are_the_base_models_or_said_to_be_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = "\n".join(f"question {n},answer {n}" for n in range(10))
    own = checked(tmp_path, f"question,answer\n{lines}")["tokens"]
    assert own["tokenizer"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert 0 < own["learnt"] < own["all"]
    spec = {
        "project": "p", "base_model": "some/model-7B", "task": {"system_prompt": "x"},
        "criteria": [{"metric": "chrf", "minimum": 0.5}],
    }  # fmt: skip
    (tmp_path / "project.yaml").write_text(json.dumps(spec))
    estimated = checked(tmp_path, f"question,answer\n{lines}")["tokens"]
    assert estimated["tokenizer"] is None
    assert "some/model-7B" in estimated["estimated_because"]


def test_all_refused_lines_of_one_reason_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"ticket_id": "T"}\n' * 150)
    done = CliRunner().invoke(app, ["publish", str(path), "--check"])
    assert done.exit_code == 3
    assert "150 lines, the first at line 1: body" in done.stderr
    assert done.stderr.count("refused") == 1


def test_a_file_needs_a_project_to_be_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWHEEL_URL", "http://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("question,answer\na,b\n")
    done = CliRunner().invoke(app, ["publish", str(tmp_path / "x.csv")])
    assert done.exit_code == 2
    assert "--project" in done.stderr


def test_near_duplicates_are_found_in_any_order_and_many_alike_in_time() -> None:
    text = "where is the parcel that I have ordered in your shop on Monday morning please"
    other = "my bicycle makes a noise when I ride it downhill in the rain"
    assert near_duplicates([text, other, f"{text} now", other.upper()]) == 2
    assert near_duplicates([f"{text} now", other, text]) == 1
    assert near_duplicates([]) == near_duplicates(["", "a"]) == 0
    assert near_duplicates([f"{text} {other} {n}" for n in range(5_000)]) == 4_999

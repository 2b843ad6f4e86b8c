"""What the registry tells of single models, at the terminal."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tunewheel_cli import client
from tunewheel_cli.comparison import print_comparison
from tunewheel_cli.exits import Exit
from tunewheel_cli.frame import app
from typer.testing import CliRunner

FOUND: dict[str, Any] = {
    "first": "desk-1", "second": "desk-2",
    "dataset": {"datasets": ["ds-1", "ds-2"], "records_added": 2, "records_removed": 1,
                "labels": {"bell": [1, 2]}, "counts": {}, "spec": {"task.system_prompt": ["[a]" * 50, None]}},
    "recipe": {"rank": [8, 16]}, "criteria": {}, "bundle": {"decoding.temperature": [0.0, 0.5]},
    "metrics": {"label_accuracy": {"first": 0.7, "second": 0.9, "lower_is_better": False,
                                   "repeat_spread": 0.01},
                "rouge_l": {"first": None, "second": 0.5, "lower_is_better": None, "repeat_spread": None}},
    "same_holdout": False,
    "direct": [{"metric": "label_accuracy", "difference": 0.2, "low": 0.05, "high": 0.35, "rows": 40,
                "clusters": 31}],
    "missing": {"desk-1 scorecard": "sc-1.json is not in [store]"},
}  # fmt: skip


def test_a_comparison_is_shown_whole() -> None:
    console = Console(width=160, record=True, file=StringIO())
    print_comparison(FOUND, console)
    text = console.export_text()
    for words in (
        "data: ds-1 → ds-2", "2 records are new, 1 are gone from training", "± 0.01",
        "different held-out rows",
        "label_accuracy: +0.2 for the second, row by row (+0.05 … +0.35, 40 rows in 31 groups)", "[a][a]",
        "desk-1 scorecard cannot be read: sc-1.json is not in [store]", "decoding.temperature",
    ):  # fmt: skip
        assert words in text, words


def run(tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [*arguments, "--var", str(tmp_path / "var")])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_card_and_comparison_are_asked_of_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    async def read(place: Any, *path: str, **_: Any) -> str:
        assert place.url == "http://registry.example"
        asked.append(path)
        return "---\nlicense: mit\n---\n" if path[-1] == "card" else json.dumps(FOUND)

    monkeypatch.setattr(client, "read_registry", read)
    monkeypatch.setenv("TUNEWHEEL_REGISTRY", "http://registry.example/")
    assert run(tmp_path, "model", "card", "desk", "desk-1") == (0, "---\nlicense: mit\n---\n", "")
    code, out, _ = run(tmp_path, "model", "compare", "desk", "desk-1", "desk-2", "--json")
    assert (code, json.loads(out)) == (0, FOUND)
    assert asked == [
        ("projects", "desk", "models", "desk-1", "card"),
        ("projects", "desk", "models", "desk-1", "comparison", "desk-2"),
    ]


def test_without_a_registry_the_command_says_how_to_name_it(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, "model", "card", "desk", "desk-1", "--registry", "http://127.0.0.1:9")
    assert code == Exit.UNREACHABLE
    assert "name the registry with --registry" in err

"""What the registry tells of single models, at the terminal, through the console."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from tunewheel_cli.commands.model import print_comparison
from tunewheel_testing.story import Story

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


def test_a_comparison_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(FOUND)
    text = capsys.readouterr().out
    for words in (
        "data: ds-1 → ds-2", "2 records are new, 1 are gone from training", "± 0.01",
        "different held-out rows",
        "label_accuracy: +0.2 for the second, row by row (+0.05 … +0.35, 40 rows in 31 groups)", "[a][a]",
        "desk-1 scorecard cannot be read: sc-1.json is not in [store]", "decoding.temperature",
    ):  # fmt: skip
        assert words in text, words


def test_card_and_comparison_are_the_registrys(console: Any, run: Any) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if request.url.path.endswith("/card"):
            return httpx.Response(200, text="# desk-1\n")
        return httpx.Response(200, json=FOUND)

    told = httpx.MockTransport(answer)
    console.registry.client = httpx.AsyncClient(transport=told, base_url="http://registry")
    console.read(*story_of_models())
    assert run("model", "card", "desk-1", "-p", "desk").stdout == "# desk-1\n"
    assert json.loads(run("model", "compare", "desk-1", "desk-2", "-p", "desk", "--json").stdout) == FOUND
    assert "data: ds-1 → ds-2" in run("model", "compare", "desk-1", "desk-2", "-p", "desk").stdout
    assert {path.rsplit("/models/")[-1] for path in asked} == {"desk-1/card", "desk-1/comparison/desk-2"}


def story_of_models() -> list[Any]:
    story = Story("desk")
    story.say("project.declared")
    for name in ("desk-1", "desk-2"):
        story.say("model.registered", model_id=name)
    return story.events

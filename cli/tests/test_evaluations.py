"""How a run was judged, on the terminal; and criteria that people write."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tunewheel_cli.calling import InvalidOption
from tunewheel_cli.scorecard_tables import print_evaluation
from tunewheel_cli.spec_file import read_criteria
from tunewheel_contracts.api.evaluations import EvaluationDetail
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.retrieval_scores import Cell, RetrievalScores
from tunewheel_contracts.formats.scorecard import CriterionCheck, Finding, Scorecard

RUN = "run-1"


def card(scorecard_id: str, **changes: Any) -> Scorecard:
    check = CriterionCheck(
        criterion=Criterion(metric="label_accuracy", over_base=0.1), observed=0.7, passed=False,
        reason="label_accuracy is 0.7 (0.5 to 0.9): [bold]cannot be told[/]", outcome="undecided",
    )  # fmt: skip
    finding = Finding(
        metric="label_accuracy", against="base", test="mcnemar_exact", difference=0.12, p_value=0.03,
        low=0.01, high=0.2, alpha=0.005, rows=40, clusters=31,
    )  # fmt: skip
    values: dict[str, Any] = {
        "scorecard_id": scorecard_id, "project": "desk", "run_id": RUN, "model_id": "m-1",
        "dataset_id": "ds-1", "criteria_sha256": "0" * 64, "contestants": (), "comparisons": (),
        "checks": (check,), "passed": False, "findings": (finding,), "looks": 3, "left_out": {"too long": 2},
    }  # fmt: skip
    return Scorecard.model_validate(values | changes)


FOUR_CELLS = RetrievalScores.model_validate(
    {
        "index_id": "ix-1", "retrieval_sha256": "0" * 64, "with_passages": True, "rows": 40,
        "ranking": {
            "questions": 12, "top_k": 3, "figures": {"mrr": 0.5}, "low": {"mrr": 0.25}, "high": {"mrr": 0.75},
        },
        "metric": "label_accuracy", "best": ["tuned", "tuned_with_passages"],
        "cells": [
            {"cell": cell, "serves": cell is Cell.TUNED_WITH_PASSAGES, "stale": 0.125,
             "figures": {"label_accuracy": n / 4} | ({"groundedness": 0.875} if cell.has_passages else {})}
            for n, cell in enumerate(Cell)
        ],
        "advice": {"approach": "hybrid", "outcome": "undecided", "reason": "these questions cannot tell"},
    }
)  # fmt: skip


def test_a_scorecard_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    unmeasured = card("sc-1", field="adapter.files", reason="are [gone]", retrieval=FOUR_CELLS)
    found = EvaluationDetail(
        evaluation_id="ev-1", project="desk", run_id=RUN, model_id="m-1", dataset_id="ds-1",
        outcome="informs", at=datetime(2026, 3, 2, tzinfo=UTC), scorecard=unmeasured,
        informs="this informs and decides nothing",
    )  # fmt: skip
    print_evaluation(found)
    text = capsys.readouterr().out
    for words in (
        "m-1 of desk, against no champion and the base", "this informs and decides nothing",
        "not measured: adapter.files are [gone]", "undecided label_accuracy is 0.7",
        "[bold]cannot be told[/]", "+0.12", "+0.01 … +0.2", "31", "left out: 2 rows, too long",
        "look 3 at", "40 questions",
        "ix-1, k 3, 12 questions whose document is known: mrr 0.5 (0.25 to 0.75)",
        "advice hybrid: undecided, these questions cannot tell",
    ):  # fmt: skip
        assert words in text, words
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()}
    assert rows["base"] == ["0.000", "0.125"]
    assert rows["tuned"] == ["0.500", "0.125", "best"]
    assert rows["tuned_with_passages"] == ["0.750", "0.875", "0.125", "serves,", "best"]


@pytest.mark.parametrize(
    "text", ["- {metric: rouge_l, minimum: 0.3}", "criteria: [{metric: rouge_l, minimum: 0.3}]"]
)
def test_criteria_are_read_from_a_list_or_a_spec(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert read_criteria(tmp_path / "c.yaml") == ({"metric": "rouge_l", "minimum": 0.3},)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("{", "is not YAML (line 1)"),
        ("[]", "holds no list of criteria"),
        ("project: desk", "holds no list of criteria"),
    ],
)
def test_criteria_that_are_none_are_refused(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidOption, match="criteria: ") as caught:
        read_criteria(path)
    assert words in str(caught.value)

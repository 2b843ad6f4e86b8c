"""What was judged of a run, read from the object store."""

from __future__ import annotations

import asyncio
import json
import os
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tunewheel_cli.evaluations import Judged, read_criteria
from tunewheel_cli.exits import Exit
from tunewheel_cli.frame import app
from tunewheel_cli.scorecard_tables import print_scorecard
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan, first_plan_path, later_plan_path
from tunewheel_contracts.formats.retrieval_scores import Cell, RetrievalScores
from tunewheel_contracts.formats.scorecard import CriterionCheck, Finding, Scorecard
from tunewheel_local.connection import InvalidOption
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.story import example
from typer.testing import CliRunner

RUN = "run-1"


def plan(evaluation_id: str | None, scorecard_id: str) -> EvaluationPlan:
    return EvaluationPlan.model_validate(
        example("eval.passed")
        | {"run_id": RUN, "champion": None, "review_required": False, "evaluation_id": evaluation_id,
           "scorecard_id": scorecard_id}
    )  # fmt: skip


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


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A run that was judged twice, and is being judged a third time."""
    place = ObjectStore((tmp_path / "var" / "store").as_uri())

    async def fill() -> None:
        for evaluation_id, scorecard_id in (("ev-1", "sc-1"), ("ev-2", "sc-2"), ("ev-3", "sc-3")):
            one = plan(evaluation_id, scorecard_id)
            path = first_plan_path(RUN) if evaluation_id == "ev-1" else later_plan_path(RUN, evaluation_id)
            await place.put(path, one.model_dump_json().encode())
        await place.put("scorecards/sc-1.json", card("sc-1").model_dump_json().encode())
        await place.put("scorecards/sc-2.json", card("sc-2").model_dump_json().encode())
        await place.put("scorecards/sc-2.html", b"<!doctype html>")

    asyncio.run(fill())
    first = tmp_path / "var" / "store" / "scorecards" / "sc-1.json"
    os.utime(first, (1_000_000_000, 1_000_000_000))  # long before the other
    return place


def run(tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [*arguments, "--var", str(tmp_path / "var")])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_the_last_scorecard_or_a_named_one_is_shown(store: ObjectStore, tmp_path: Path) -> None:
    assert (
        json.loads(run(tmp_path, "run", "scorecard", RUN, "--json")[1])["scorecard"]["scorecard_id"] == "sc-2"
    )
    named = json.loads(run(tmp_path, "run", "scorecard", RUN, "--evaluation", "ev-1", "--json")[1])
    assert named["plan"]["evaluation_id"] == "ev-1"


def test_the_page_is_written(store: ObjectStore, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, said, _ = run(tmp_path, "run", "scorecard", RUN, "--html", str(page))
    assert (code, page.read_bytes()) == (0, b"<!doctype html>")
    assert "undecided" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run-2",), "holds no evaluation of run-2"),
        (("../run-1",), "run: '../run-1'"),
        ((RUN, "--evaluation", "ev-9"), "holds no evaluation ev-9 of run-1"),
        ((RUN, "--evaluation", "ev-3"), "ev-3 is not judged yet"),
        ((RUN, "--evaluation", "ev-1", "--html", "page.html"), "a scorecard and no page"),
    ],
)
def test_what_is_not_there_is_named(
    store: ObjectStore, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, _, error = run(tmp_path, "run", "scorecard", *arguments)
    assert code == Exit.FAILED
    assert words in " ".join(error.split())


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


def test_a_scorecard_is_shown_whole() -> None:
    console = Console(width=160, record=True, file=StringIO())
    unmeasured = card("sc-1", field="adapter.files", reason="are [gone]", retrieval=FOUR_CELLS)
    other = plan("ev-1", "sc-1").model_copy(update={"criteria": (Criterion(metric="rouge_l", minimum=0.3),)})
    print_scorecard(Judged(other, unmeasured), console)
    text = console.export_text()
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
    assert read_criteria(tmp_path / "c.yaml") == (Criterion(metric="rouge_l", minimum=0.3),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read as YAML"),
        ("a: 1\na: 2", "a is given in line 1 and again"),
        ("[]", "names none"),
        ("project: desk", "criteria:"),
        ("- {metric: rouge_l}", "has no bound"),
    ],
)
def test_criteria_that_are_none_are_refused(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidOption, match="criteria: ") as caught:
        read_criteria(path)
    assert words in str(caught.value)

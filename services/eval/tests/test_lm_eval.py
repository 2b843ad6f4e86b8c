"""Whole evaluations by tasks of lm-evaluation-harness, on the tiny model, measured in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.evaluation import EvalFailed, EvalRequested
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.scorecard import Role, Scorecard
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_eval import evaluation, lm_eval_tasks, measuring
from tunewheel_eval import plan as planning
from tunewheel_eval.evaluation import Evaluator
from tunewheel_eval.forgetting import Erased
from tunewheel_eval.job import Job, Progress
from tunewheel_eval.measurement import LmEvalRow, read_measurement
from tunewheel_eval.requests import Asked
from tunewheel_eval.settings import Settings
from tunewheel_outputs.lm_eval_task import find_task
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.log import lease

from .harness_tasks import FOLDER, NAMES

MakeRun = Callable[..., Awaitable[TrainCompleted]]
PERPLEXITY = {"metric": "lm_eval.text.byte_perplexity", "minimum": 1.0}


@pytest.fixture
async def evaluator(
    store: ObjectStore, tmp_path: Path, regression_set: Path, monkeypatch: pytest.MonkeyPatch
) -> Evaluator:
    async def measured_here(job: Path, *, on_progress: Any, **_: Any) -> None:
        said: list[Progress] = []
        measuring.measure(Job.model_validate_json(job.read_text("utf-8")), said.append)
        for line in said:
            await on_progress(line)

    monkeypatch.setattr(evaluation, "run_worker", measured_here)
    options: dict[str, Any] = {"eval_regression_set": regression_set, "eval_threads": 1, "eval_batch_size": 4}
    made = Evaluator(store, Settings(cache_dir=tmp_path / "cache", **options), Erased())
    await made.prepare()
    return made


def spec(*criteria: dict[str, Any], names: tuple[str, ...] = NAMES, **changes: Any) -> ProjectSpec:
    tasks = [
        {"task": name, "path": "benchmarks/ours", "sha256": find_task(name, FOLDER).sha256} | changes
        for name in names
    ]
    return ProjectSpec.model_validate(
        {
            "project": "desk",
            "base_model": "tiny",
            "task": {"system_prompt": "s", "max_output_tokens": 12},
            "criteria": criteria or [PERPLEXITY],
            "evaluation": {"lm_eval": tasks},
        }
    )


async def put_folder(store: ObjectStore, files: dict[str, bytes] = FOLDER) -> None:
    for name, data in files.items():
        await store.put(f"benchmarks/ours/{name}", data)


async def test_a_verdict_by_its_tasks_and_another_of_the_same_rows(
    real_run: MakeRun, store: ObjectStore, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_folder(store)
    strict = {"metric": "lm_eval.echo.exact_match.word", "minimum": 1.0}
    verdict = await evaluator.evaluate(await real_run(spec(PERPLEXITY, strict)), None, lease())
    assert isinstance(verdict, EvalFailed)
    card = Scorecard.model_validate_json(await store.get(verdict.scorecard))
    assert [check.outcome for check in card.checks][:1] == ["met"]
    figures = {name for name in FIGURES if name in card.contestants[0].metrics}
    assert figures == set(FIGURES)
    assert card.metrics["lm_eval.text.byte_perplexity"].lower_is_better
    rows = {one.metric: one.rows for one in card.findings if one.metric in figures}
    assert (rows["lm_eval.choice.acc"], rows["lm_eval.text.word_perplexity"]) == (5, 3)
    page = (await store.read(f"scorecards/{card.scorecard_id}.html") or b"").decode()
    assert "lm_eval.choice.acc_norm" in page

    stored = [path for path in await store.list("measurements") if path.endswith(".jsonl")]
    found = [read_measurement((await store.read(path) or b"").decode()) for path in stored]
    kept = [row for one in found if one for row in one.rows.values() if isinstance(row, LmEvalRow)]
    assert len(kept) == 2 * 12  # candidate and base

    monkeypatch.setattr(evaluation, "run_worker", None)  # nobody may start a worker from here on
    monkeypatch.setattr(planning, "SCORING", planning.SCORING + 1)

    async def anybody(_: EvalRequested) -> None: ...

    said = EvalRequested(project="desk", run_id=verdict.run_id, request="again")
    _, again = await evaluator.evaluate_again(Asked(said, None, anybody), lease())
    assert isinstance(again, EvalFailed)
    assert {one.role: one.metrics for one in again.contestants} == {
        one.role: one.metrics for one in verdict.contestants
    }
    assert {one.role for one in again.contestants} == {Role.CANDIDATE, Role.BASE}


FIGURES = (
    "lm_eval.choice.acc", "lm_eval.choice.acc_norm", "lm_eval.choice.acc_bytes",
    "lm_eval.echo.exact_match.first", "lm_eval.echo.exact_match.word",
    "lm_eval.text.word_perplexity", "lm_eval.text.byte_perplexity",
)  # fmt: skip


@pytest.mark.parametrize(
    ("case", "field", "reason"),
    [
        ("not installed", "lm_eval", r"install tunewheel-eval\[lm-eval\]"),
        ("gone", "lm_eval.0.path", "benchmarks/ours is not in the object store; put it there"),
        ("changed", "lm_eval.0.sha256", "hashes to .*; restore it"),
        ("runs code", "lm_eval.0.path", "!function"),
    ],
)
async def test_a_task_that_cannot_be_asked_is_a_dead_letter(
    case: str, field: str, reason: str, make_run: MakeRun, store: ObjectStore, evaluator: Evaluator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    files = {
        "gone": {},
        "changed": FOLDER | {"text.jsonl": b'{"text": "another"}\n'},
        "runs code": FOLDER | {"text.yaml": FOLDER["text.yaml"] + b"process_docs: !function code.clean"},
    }.get(case, FOLDER)
    await put_folder(store, files)
    if case == "not installed":
        monkeypatch.setattr(lm_eval_tasks, "PACKAGE", "a-package-that-nobody-installed")
    event = await make_run(spec(names=("text",)))
    with pytest.raises(InvalidEvent, match=reason) as caught:
        await evaluator.evaluate(event, None, lease())
    assert caught.value.field == f"dataset.spec.evaluation.{field}"


async def test_a_criterion_on_what_a_task_lacks_is_missed(
    real_run: MakeRun, store: ObjectStore, evaluator: Evaluator
) -> None:
    """As far as the first questions; what follows a limit is not asked."""
    await put_folder(store)
    asked = spec({"metric": "lm_eval.text.acc", "minimum": 0.1}, names=("text",), limit=2)
    verdict = await evaluator.evaluate(await real_run(asked), None, lease())
    assert isinstance(verdict, EvalFailed)
    assert verdict.reasons == ("lm_eval.text.acc was not measured: it says nothing about any of the rows",)
    card = Scorecard.model_validate_json(await store.get(verdict.scorecard))
    assert {one.rows for one in card.findings if one.metric.startswith("lm_eval")} == {2}

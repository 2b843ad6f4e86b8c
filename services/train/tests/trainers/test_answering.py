"""Recipes that are tried on a task with labels are measured by the labels of their answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.formats.task_spec import TaskSpec
from tunewheel_train.errors import RunFailed, RunStopped
from tunewheel_train.job import Tried
from tunewheel_train.progress import Answered, Completed, Warned, parse
from tunewheel_train.trainers.answering import ROWS_AT_ONCE

TASK = TaskSpec.model_validate(
    {
        "system_prompt": "Answer with a letter.", "max_output_tokens": 1,
        "output_rules": [{"rule": "allowed_values", "values": ["a", "b"]}],
    }
)  # fmt: skip


def row(number: int, *, labelled: bool = True) -> dict[str, Any]:
    """A question whose answer is the letter that it begins with. Two rows are a group."""
    letter = "ab"[number % 2]
    return {
        "example_id": f"ex-{number:03}", "group": f"g-{number // 2}",
        "format": "answer" if labelled else "document",
        "messages": [
            {"role": "system", "content": TASK.system_prompt},
            {"role": "user", "content": f"{letter * 3} {number}"},
            {"role": "assistant", "content": letter},
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("letters") / "train.parquet"
    pl.DataFrame([row(number) for number in range(100)]).write_parquet(path)
    return path


def options(path: Path, task: TaskSpec | None = TASK, **tried: Any) -> dict[str, Any]:
    return {
        "train_path": path, "tried": Tried(sweep_id="sweep-1", task=task, **tried), "epochs": 6.0,
        "validation_fraction": 0.45, "checkpoint_steps": 4, "batch_size": 16, "micro_batch_size": 8,
    }  # fmt: skip


def rows_of(outcome: Completed) -> list[float]:
    return [hit for group in outcome.label_hits for hit in group]


@pytest.fixture(scope="module")
def learnt(cases, letters: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Completed]:
    run = cases(tmp_path_factory.mktemp("labels"))(**options(letters, part=1.0), learning_rate=2e-2)
    return run, run.train()


def test_a_recipe_that_learns_the_label_answers_with_it(learnt, case, letters: Path):
    run, outcome = learnt
    rows = rows_of(outcome)
    assert outcome.metrics["labelled_examples"] == len(rows) == outcome.metrics["validation_examples"] >= 20
    assert outcome.metrics["validation_label_accuracy"] == sum(rows) / len(rows) > 0.9
    assert all(len(group) == 2 for group in outcome.label_hits)
    assert [m.batches for m in run.heard(Answered)] == list(range(1, -(-len(rows) // (8 * ROWS_AT_ONCE)) + 1))
    idle = case("idle", **options(letters, part=0.1), learning_rate=1e-6).train()
    assert idle.metrics["validation_label_accuracy"] < 0.9
    assert [len(group) for group in idle.label_hits] == [len(group) for group in outcome.label_hits]


@pytest.mark.parametrize("where", ["by a stop", "by a ceiling"])
def test_a_recipe_that_is_interrupted_while_it_answers_is_measured_the_same(
    learnt, case, letters: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    told = {**options(letters, part=1.0), "learning_rate": 2e-2}
    first, again = case("answers", **told), case("answers", **told)
    if where == "by a stop":
        with pytest.raises(RunStopped):
            first.train(lambda: bool(first.heard(Answered)))
    else:
        over = property(lambda self: bool(first.heard(Answered)))
        with monkeypatch.context() as patch:
            patch.setattr("tunewheel_train.preparation.affordable_hours", lambda *_: 1.0)
            patch.setattr("tunewheel_train.trainers.course.Course.is_over_limit", over)
            with pytest.raises(RunFailed) as failure:
                first.train()
        assert failure.value.field == "train.max_hours"
    outcome = again.train()
    assert outcome.label_hits == learnt[1].label_hits
    assert outcome.steps == learnt[1].steps


def test_what_the_answers_took_is_still_counted_after_the_next_part(case, letters: Path):
    case("counts", **options(letters, part=0.1)).train()
    outcome = case("counts", **options(letters, part=0.2, spent_hours=2.0)).train()
    assert 2 * 3600 < outcome.wall_seconds < 2.5 * 3600


@pytest.mark.parametrize(("labelled", "measured"), [(0, False), (70, True)])
def test_rows_without_a_label_do_not_count(case, tmp_path: Path, labelled: int, measured: bool):
    path = tmp_path / "train.parquet"
    pl.DataFrame([row(n, labelled=n < labelled) for n in range(100)]).write_parquet(path)
    run = case(**options(path, part=0.1))
    outcome = run.train()
    assert ("validation_label_accuracy" in outcome.metrics) == bool(outcome.label_hits) == measured
    assert [m.reason for m in run.heard(Warned) if "by loss alone" in m.reason] == (
        [] if measured else ["is measured by loss alone: 0 validation rows have a label, and 20 are needed"]
    )
    if measured:
        assert len(rows_of(outcome)) < outcome.metrics["validation_examples"]


def test_a_task_without_labels_is_not_answered(case, letters: Path):
    run = case(**options(letters, task=None, part=0.1))
    assert run.train().label_hits == ()
    assert run.heard(Answered) == run.heard(Warned) == []


def test_two_processes_divide_the_answers(learnt, case, letters: Path, forge, tmp_path: Path):
    made = case("two", **options(letters, part=1.0), learning_rate=2e-2, processes=2)
    file = tmp_path / "job.json"
    file.write_text(made.job.model_dump_json())
    assert forge(file, processes=2) == [0, 0]
    told = [parse(line) for line in Path(f"{file}.0.out").read_bytes().splitlines()]
    (outcome,) = (message for message in told if isinstance(message, Completed))
    assert outcome.label_hits == learnt[1].label_hits
    assert len([message for message in told if isinstance(message, Answered)]) < len(
        learnt[0].heard(Answered)
    )

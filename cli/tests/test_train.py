"""Recipes that are tried before the wheel turns with them."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tunewheel_cli.commands.train import print_sweep
from tunewheel_cli.spec_file import write_recipe
from tunewheel_contracts.api.runs import SweepDetail
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.training import SweepProgressed
from tunewheel_contracts.formats.sweep import Lead, SweepState, TriedRun, ranked
from tunewheel_testing.console import Console
from tunewheel_testing.datasets import put_dataset
from tunewheel_testing.story import Story

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
SPEC = """project: desk
train:
  method: lora
  # Twenty times what suits larger models.
  learning_rate: 0.002  # measured in May
  rank: 16

criteria:
  - metric: perplexity
    rank: 3
"""


@pytest.fixture
def told(console: Console) -> Console:
    """A console with a version, whose train service measures what it is asked for."""
    story = Story("desk")
    declared = story.say("project.declared")
    spec = declared.data.spec
    row = {
        "example_id": "ex-1", "label": "bell", "group": "g", "trust": "expert", "record_ids": ["rec-1"],
        "messages": [{"role": "user", "content": "Does it ring?"}, {"role": "assistant", "content": "bell"}],
    }  # fmt: skip
    _, ref = asyncio.run(put_dataset(console.store, spec, dataset_id="ds-1", train=[row], holdout=[row]))
    story.say("dataset.versioned", dataset_id="ds-1", manifest=ref, criteria_sha256=spec.criteria_sha256)
    console.read(*story.events)
    console.answer = measured
    return console


def measured(event: Envelope[Any]) -> list[Envelope[Any]]:
    data = event.data
    if data.type != "sweep.requested":
        return []
    runs = tuple(
        TriedRun(
            run_id=f"{data.sweep_id}-{number}", changes=changes, part=1.0, steps=6, total_steps=6,
            validation_loss=abs(changes["learning_rate"] - 1e-3), seconds=60.0,
            label_accuracy=changes.get("dropout"),
        )
        for number, changes in enumerate(data.recipes, 1)
    )  # fmt: skip
    best = ranked(runs)[0]
    lead = Lead(over=runs[0].run_id, part=1.0, difference=0.05, low=-0.02, high=0.12)
    ended = SweepProgressed(
        project="desk", sweep_id=data.sweep_id, dataset_id="ds-1", state=SweepState.COMPLETED,
        measured=len(runs), runs=runs, best=best.run_id, max_hours=data.max_hours,
        lead=lead if best.label_accuracy else None, labelled_examples=40 if best.label_accuracy else None,
    )  # fmt: skip
    return [new_event(ended, source="/train", cause=event)]


def test_every_combination_is_tried_and_the_best_is_written(told: Console, run: Any, tmp_path: Path) -> None:
    spec = tmp_path / "project.yaml"
    spec.write_text(SPEC)
    over = ("--over", "learning_rate=1e-3,1e-4", "--over", "rank=8,32", "--set", "epochs=2")
    out = run("train", "sweep", "-p", "desk", *over, "--write", str(spec)).stdout
    (asked,) = told.log.of("sweep.requested")
    assert [dict(one) for one in asked.recipes] == [
        {"epochs": 2, "learning_rate": rate, "rank": rank} for rate in (1e-3, 1e-4) for rank in (8, 32)
    ]
    assert asked.method == "halving"
    first = out.splitlines()[1]
    assert f"{asked.sweep_id}-1 *" in first
    assert "epochs=2 learning_rate=0.001 rank=8" in first
    assert spec.read_text() == SPEC.replace("0.002 ", "0.001 ").replace("rank: 16", "rank: 8").replace(
        "train:\n", "train:\n  epochs: 2\n"
    )
    shown = json.loads(run("train", "show", "latest", "-p", "desk", "--json").stdout)
    assert shown["best"] == f"{asked.sweep_id}-1"
    assert asked.sweep_id in run("train", "list", "-p", "desk").stdout


def test_the_best_by_label_accuracy_comes_first_and_its_lead_is_told(told: Console, run: Any) -> None:
    over = ("--over", "dropout=0.1,0.3,0.2", "--set", "learning_rate=0.001")
    lines = run("train", "sweep", "-p", "desk", *over).stdout.splitlines()
    (asked,) = told.log.of("sweep.requested")
    head = next(at for at, line in enumerate(lines) if "LABEL ACCURACY" in line)
    assert [line.split()[0][-1] for line in lines[head + 1 : head + 4]] == ["2", "3", "1"]
    assert "0.300" in lines[head + 1]
    assert lines[-1] == (
        f"* {asked.sweep_id}-2 has the best label accuracy: +0.050 label accuracy over {asked.sweep_id}-1 "
        "(95 % interval -0.020 to +0.120): these rows cannot tell which of both is better"
    )


@pytest.mark.parametrize("unlabelled", [0, 1])
def test_recipes_of_which_one_has_no_labels_are_said_to_be_judged_by_loss(
    capsys: pytest.CaptureFixture[str], unlabelled: int
) -> None:
    """A sweep during which the service was upgraded has such recipes."""
    runs = tuple(
        TriedRun(
            run_id=f"sweep-1-{n}", changes={}, part=1.0, validation_loss=0.2 + n,
            label_accuracy=None if n == unlabelled else 0.5,
        )
        for n in range(2)
    )  # fmt: skip
    found = SweepDetail(
        sweep_id="sweep-1", project="desk", dataset_id="ds-1", state="completed", method="grid", runs=runs,
        best="sweep-1-0", max_hours=1.0, created_at=MARCH, news_at=MARCH,
    )  # fmt: skip
    print_sweep(found)
    assert capsys.readouterr().out.splitlines()[-1] == "* sweep-1-0 has the best validation loss"


def test_one_recipe_is_tried(told: Console, run: Any) -> None:
    found = json.loads(
        run(
            "train", "run", "-p", "desk", "--dataset", "ds-1", "--set", "learning_rate=0.003", "--json"
        ).stdout
    )
    assert (found["state"], found["runs"][0]["changes"]) == ("completed", {"learning_rate": 0.003})


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (("--set", "rnak=8"), 1, "train.rnak"),
        (("--set", "rank=lots"), 1, "train.rank"),
        (("--set", "rank"), 2, "--set"),
        (("--set", "rank=8", "--set", "rank=9"), 2, "--set"),
    ],
)
def test_a_wrong_field_is_named(
    told: Console, run: Any, options: tuple[str, ...], code: int, named: str
) -> None:
    assert named in run("train", "run", "-p", "desk", *options, code=code).stderr
    assert told.log.events == []


def test_a_recipe_is_added_to_a_spec_without_one(tmp_path: Path) -> None:
    spec = tmp_path / "project.yaml"
    spec.write_text("project: desk")
    write_recipe(spec, {"rank": 8, "target_modules": ["q_proj", "v_proj"]})
    assert spec.read_text() == "project: desk\n\ntrain:\n  target_modules: [q_proj, v_proj]\n  rank: 8\n"


@pytest.mark.parametrize(
    "train", ["train: {rank: 16}\n", "train:\n  rank:\n    16\n", "train: &recipe\n  rank: 16\n"]
)
def test_a_spec_in_another_style_is_left_alone(tmp_path: Path, train: str) -> None:
    spec = tmp_path / "project.yaml"
    spec.write_text(f"project: desk\n{train}")
    with pytest.raises(InvalidSpec, match="rank: 8"):
        write_recipe(spec, {"rank": 8})
    assert spec.read_text() == f"project: desk\n{train}"

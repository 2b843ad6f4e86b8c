"""How long eight recipes take on the bundled example: a version by curate's own code, and the sweep by
train's own code and processes, as `tunewheel train sweep` orders it. Without Kafka.

    make bench NAME=sweep                        SmolLM2-135M; meant for a machine with nothing else to do
    make bench NAME=sweep ARGS="--tiny"          a tiny random model: whether it works, not how long it takes

The report has the seconds from the order to the last measurement, those of training, and what was measured
of each recipe.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from first_turns import CACHE, EXAMPLE, records
from report import BENCH_DIR, write_report
from tunewheel_contracts.event import Event, new_event
from tunewheel_contracts.events.training import SweepProgressed, SweepRequested
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.spec import ProjectSpec, parse_spec
from tunewheel_contracts.formats.sweep import SweepMethod, SweepState
from tunewheel_curate.evaluation.benchmarks import regression_benchmark
from tunewheel_curate.inputs import Inputs, Pinned
from tunewheel_curate.pipeline import build
from tunewheel_curate.replay.sources import read_replay
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.datasets import put_dataset, versioned
from tunewheel_testing.tiny import write_tiny_model
from tunewheel_train.execution import Trainings
from tunewheel_train.runs.controls import Controls, Versions
from tunewheel_train.settings import Settings
from tunewheel_train.sweeping import Sweeps

RECIPES = tuple(
    {"learning_rate": rate, "rank": rank} for rate in (5e-4, 1e-3, 2e-3, 4e-3) for rank in (8, 16)
)


class Lease:
    """A lease that is never lost."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def check(self) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true", help="a tiny random model, and one epoch")
    parser.add_argument("--recipes", type=int, default=len(RECIPES), help="the first so many of eight")
    parser.add_argument("--method", type=SweepMethod, default=SweepMethod.HALVING)
    parser.add_argument("--max-hours", type=float, default=1.0)
    parser.add_argument("--slots", type=int, default=1, help="runs at once")
    chosen = parser.parse_args()
    BENCH_DIR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BENCH_DIR) as scratch:
        ended, seconds = asyncio.run(swept(Path(scratch), chosen))
    if ended.state is not SweepState.COMPLETED:
        sys.exit(f"the sweep {ended.state}: {ended.field} {ended.reason}")
    assert all(run.validation_loss is not None for run in ended.runs)
    write_report(
        "sweep",
        packages=("torch", "transformers", "peft", "trl"),
        contenders={
            str(run.changes): run.model_dump(
                mode="json", include={"part", "steps", "validation_loss", "label_accuracy", "seconds"}
            )
            for run in ended.runs
        },
        ratios={},
        seconds=round(seconds, 1),
        training_seconds=round(ended.hours * 3600, 1),
        best=next(run.changes for run in ended.runs if run.run_id == ended.best),
        validation_examples=ended.validation_examples,
        slots=chosen.slots,
        tiny=chosen.tiny,
        load_average=os.getloadavg(),
    )


async def swept(folder: Path, chosen: argparse.Namespace) -> tuple[SweepProgressed, float]:
    """Build the version and try the recipes. Return how the sweep ended, and its seconds."""
    spec = parse_spec((EXAMPLE / "project.yaml").read_text("utf-8"))
    if chosen.tiny:
        base = str(write_tiny_model(folder / "base", context=2048))
        epochs = spec.train.model_copy(update={"epochs": 1.0})
        spec = spec.model_copy(update={"base_model": base, "train": epochs})
    store = ObjectStore(f"file://{folder}/store")
    version = await put_dataset(store, spec, dataset_id="ds-example", train=training_rows(spec))
    cache = folder / "cache"
    cache.mkdir()
    for kept in CACHE.glob("*"):  # of base models
        (cache / kept.name).symlink_to(kept)
    settings = Settings(cache_dir=cache, train_slots=chosen.slots)
    controls = Controls()
    versions = Versions()
    versions.versioned(new_event(versioned(*version), source="/bench"))
    sweeps = Sweeps(store, Trainings(store, settings, controls), controls, versions)
    asked = SweepRequested(
        project=spec.project, sweep_id="sweep-bench", dataset_id="ds-example",
        recipes=RECIPES[: chosen.recipes], method=chosen.method, max_hours=chosen.max_hours, request="bench",
    )  # fmt: skip

    async def tell(event: Event) -> None:
        if isinstance(event, SweepProgressed):
            print(f"{event.measured} measured, {event.hours * 3600:.0f} s trained", file=sys.stderr)

    lease: Any = Lease()
    began = time.monotonic()
    ended = await sweeps.train(asked, lease=lease, tell=tell)
    return ended, time.monotonic() - began


def training_rows(spec: ProjectSpec) -> bytes:
    """Return the training rows that curate makes of the example's first wave."""
    inputs = Inputs(
        benchmarks=(regression_benchmark(None),), pinned=Pinned(secret="sweep"),
        replay=spec.dataset.replay and read_replay(spec.dataset.replay, AllowedSources()),
    )  # fmt: skip
    made = build(records("first"), spec, inputs)
    assert made.rejections == (), made.rejections
    file = io.BytesIO()
    made.split.train.write_parquet(file)
    return file.getvalue()


if __name__ == "__main__":
    main()

"""What an attempt brings to its machine before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeter
from tunewheel_contracts.formats.methods import PreferenceMethod
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_planner.calibration import Correction
from tunewheel_runtime.store import ObjectStore
from tunewheel_train.metrics import Metrics
from tunewheel_train.runs.attempts import Attempt
from tunewheel_train.runs.controls import Versions
from tunewheel_train.runs.runs import Run
from tunewheel_train.settings import Settings


def attempt_at(run: Run, store: ObjectStore, settings: Settings, **corrections: Correction) -> Attempt:
    nobody: Any = SimpleNamespace()
    return Attempt(
        run, store=store, settings=settings, controls=nobody, lease=nobody, tell=nobody,
        corrections=corrections, slots=nobody, tracker=nobody, versions=Versions(),
        metrics=Metrics(NoOpMeter("train")),
    )  # fmt: skip


async def test_the_training_process_is_told_what_the_worker_was_set_to(a_run, tmp_path: Path) -> None:
    store = ObjectStore((tmp_path / "store").as_uri())
    devices = files("tunewheel_planner") / "devices.json"
    settings = Settings(
        cache_dir=tmp_path / "cache", work_dir=tmp_path / "work", train_dtype="float32",
        train_sharding="fsdp", silent_seconds=120, devices=Path(str(devices)),
    )  # fmt: skip
    run = replace(a_run, train=await store.put("datasets/ds-1/train.parquet", b"train"))
    known = Correction(speed=2.0, memory=0.5, runs=3, spread=0.1)
    job = await attempt_at(run, store, settings, cpu=known)._prepare()
    assert (job.dtype, job.sharding, job.devices) == ("float32", "fsdp", settings.devices)
    assert job.alive_seconds == 2
    assert job.corrections == {"cpu": known}
    assert (job.recipe, job.base_model) == (run.recipe, run.base.name)
    here = tmp_path / "work" / "train" / "runs" / run.run_id
    assert (job.work_dir, job.output_dir, job.cache_dir) == (
        here / "work",
        here / "adapter",
        tmp_path / "cache",
    )


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("method", [None, *PreferenceMethod])
async def test_answers_to_avoid_are_fetched_for_the_method_that_can_use_them_or_has_nothing_else(
    a_run, tmp_path: Path, method: PreferenceMethod | None, paired: bool
) -> None:
    store = ObjectStore((tmp_path / "store").as_uri())
    pairs = await store.put("datasets/ds-1/preferences.parquet", b"pairs")
    negatives = await store.put("datasets/ds-1/negatives.parquet", b"negatives")
    train = await store.put("datasets/ds-1/train.parquet", b"train")
    recipe = TrainSpec.model_validate({"preference": {"method": method}} if method else {})
    held = {"preferences": pairs if paired else None, "negatives": negatives}
    run = replace(a_run, train=train, recipe=recipe, **held)
    job = await attempt_at(run, store, Settings(cache_dir=tmp_path / "cache"))._prepare()
    brought = [path and path.read_bytes() for path in (job.preferences_path, job.negatives_path)]
    wanted = method == "kto" or (method and not paired)
    assert brought == [b"pairs" if method and paired else None, b"negatives" if wanted else None]

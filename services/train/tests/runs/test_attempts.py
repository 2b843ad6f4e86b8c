"""What an attempt brings to its machine before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tunewheel_contracts.formats.recipe import PreferenceMethod, TrainSpec
from tunewheel_runtime.store import ObjectStore
from tunewheel_train.runs.attempts import Attempt
from tunewheel_train.settings import Settings


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
    nobody: Any = SimpleNamespace()
    attempt = Attempt(
        run, store=store, settings=Settings(runs_dir=tmp_path / "runs"), controls=nobody, lease=nobody,
        tell=nobody, corrections={}, slots=nobody, tracker=nobody,
    )  # fmt: skip
    job = await attempt._prepare()
    brought = [path and path.read_bytes() for path in (job.preferences_path, job.negatives_path)]
    wanted = method == "kto" or (method and not paired)
    assert brought == [b"pairs" if method and paired else None, b"negatives" if wanted else None]

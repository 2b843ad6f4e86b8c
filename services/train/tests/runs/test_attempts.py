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


@pytest.mark.parametrize("method", [None, *PreferenceMethod])
async def test_answers_to_avoid_are_fetched_for_the_method_that_can_use_them(
    a_run, tmp_path: Path, method: PreferenceMethod | None
) -> None:
    store = ObjectStore((tmp_path / "store").as_uri())
    pairs = await store.put("datasets/ds-1/preferences.parquet", b"pairs")
    negatives = await store.put("datasets/ds-1/negatives.parquet", b"negatives")
    train = await store.put("datasets/ds-1/train.parquet", b"train")
    recipe = TrainSpec.model_validate({"preference": {"method": method}} if method else {})
    run = replace(a_run, train=train, preferences=pairs, negatives=negatives, recipe=recipe)
    nobody: Any = SimpleNamespace()
    attempt = Attempt(
        run, store=store, settings=Settings(runs_dir=tmp_path / "runs"), controls=nobody, lease=nobody,
        tell=nobody, corrections={}, slots=nobody, tracker=nobody,
    )  # fmt: skip
    job = await attempt._prepare()
    brought = [path and path.read_bytes() for path in (job.preferences_path, job.negatives_path)]
    assert brought == [b"pairs" if method else None, b"negatives" if method == "kto" else None]

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_eval.artifacts import (
    fetch_candidate,
    keep_measurement,
    known_rows,
    read_holdout,
    read_terms,
)
from tunewheel_eval.errors import UnfitCandidate
from tunewheel_eval.measurement import Header, Measurement, RegressionRow
from tunewheel_eval.plan import read_manifest
from tunewheel_runtime.store import ObjectStore

MakeRun = Callable[..., Awaitable[TrainCompleted]]


async def test_holdout_comes_back_as_it_was_written(
    make_run: MakeRun, store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    manifest = await read_manifest(store, (await make_run()).dataset)
    assert await read_holdout(store, manifest.holdout) == examples


async def test_holdout_that_is_none_is_named(store: ObjectStore, make_run: MakeRun) -> None:
    not_parquet = await store.put("datasets/x/holdout.parquet", b"not parquet")
    empty = (await read_manifest(store, (await make_run(dataset_id="ds-empty", holdout=())).dataset)).holdout
    for ref in (not_parquet, empty, empty.model_copy(update={"path": "nowhere"})):
        with pytest.raises(InvalidEvent) as caught:
            await read_holdout(store, ref)
        assert caught.value.field.startswith("dataset.holdout")


def adapter_with(event: TrainCompleted, *names: str, **changes: Any) -> AdapterRef:
    files = [{"path": f"{event.adapter.path}/{name}", "sha256": "0" * 64, "size_bytes": 1} for name in names]
    return AdapterRef.model_validate({**event.adapter.model_dump(), "files": files, **changes})


GOOD = ("adapter_config.json", "adapter_model.safetensors")


async def test_files_that_must_not_be_loaded_make_the_candidate_unfit(
    make_run: MakeRun, store: ObjectStore, tmp_path: Path
) -> None:
    event = await make_run()
    with pytest.raises(UnfitCandidate, match="pickled files") as caught:
        await fetch_candidate(store, adapter_with(event, *GOOD, "adapter_model.bin"), tmp_path)
    assert caught.value.field == "adapter.files"


async def test_candidate_is_fetched_whole_and_verified(
    make_run: MakeRun, store: ObjectStore, tmp_path: Path
) -> None:
    event = await make_run()
    directory = await fetch_candidate(store, event.adapter, tmp_path / "here")
    assert {file.name for file in directory.iterdir()} >= set(GOOD)
    corrupt = event.adapter.files[0].model_copy(update={"sha256": "0" * 64})
    missing = event.adapter.files[0].model_copy(update={"path": f"{event.adapter.path}/adapter_config.json"})
    for files in ((corrupt, *event.adapter.files[1:]), (missing,)):
        broken = event.adapter.model_copy(update={"files": files})
        with pytest.raises(UnfitCandidate) as caught:
            await fetch_candidate(store, broken, tmp_path / "elsewhere")
        assert caught.value.field == "adapter.files"
    assert not (tmp_path / "elsewhere").exists()


async def test_rows_are_found_by_model_whichever_version_asked(store: ObjectStore) -> None:
    def of(model: str, letter: str, correct: bool = True) -> Measurement:
        row = RegressionRow(key=letter * 64, output="o", correct=correct)
        return Measurement(header=Header(model_key=model, dtype="float32"), rows={row.key: row})

    await keep_measurement(store, of("m1", "a"), dataset_id="ds-1")
    await keep_measurement(store, of("m1", "a", correct=False), dataset_id="ds-1")  # the first one stays
    await keep_measurement(store, of("m1", "b"), dataset_id="ds-2")
    await keep_measurement(store, of("m1", "a", correct=False), dataset_id="ds-3")
    await keep_measurement(store, of("m2", "c"), dataset_id="ds-1")
    keys = [letter * 64 for letter in "abc"]
    header = Header(model_key="m1", dtype="float32")
    first = await known_rows(store, header, keys, dataset_ids=["ds-1"])
    assert first.rows == of("m1", "a").rows | of("m1", "b").rows
    third = await known_rows(store, header, keys, dataset_ids=["ds-3", "ds-9"])
    assert third.rows == of("m1", "a", correct=False).rows | of("m1", "b").rows
    for other in ({"dtype": "bfloat16"}, {"method": 0}, {"model_key": "m3"}):
        assert not (await known_rows(store, header.model_copy(update=other), keys, dataset_ids=[])).rows


async def test_terms_of_the_training_rows(make_run: MakeRun, store: ObjectStore) -> None:
    manifest = await read_manifest(store, (await make_run()).dataset)
    assert {"help", "desk", "delivery", "category"} <= await read_terms(store, manifest.train)
    not_parquet = await store.put("datasets/x/train.parquet", b"not parquet")
    for ref in (not_parquet, not_parquet.model_copy(update={"path": "nowhere"})):
        with pytest.raises(InvalidEvent, match=r"^dataset\.train "):
            await read_terms(store, ref)

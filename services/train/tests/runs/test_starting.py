from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_train.errors import RunFailed
from tunewheel_train.runs.runs import plan_run
from tunewheel_train.runs.starting import fetch_start

BASE = BaseModelRef(name="some/model", revision="abc")
MODEL = "helpdesk-0123456789ab"


async def planned(bench, *, told: dict | None = None, **train):
    made = await bench(**({"continue_from": MODEL} | train))
    if told is not None:
        whole = {"base_model": "some/model", "base_revision": "abc", "quantization": None} | told
        await made.store.put(f"adapters/{MODEL}/tunewheel.json", json.dumps(whole).encode())
        await made.store.put(f"adapters/{MODEL}/adapter_config.json", b"{}")
        await made.store.put(f"adapters/{MODEL}/adapter_model.safetensors", b"weights")
    return made.store, plan_run(made.manifest, made.event.manifest, BASE)


async def test_the_adapters_files_are_brought_here(bench, tmp_path: Path):
    store, run = await planned(bench, told={})
    directory = await fetch_start(store, run, tmp_path / "start")
    assert directory == tmp_path / "start"
    assert (directory / "adapter_model.safetensors").read_bytes() == b"weights"


async def test_a_run_that_starts_anew_brings_nothing(bench, tmp_path: Path):
    store, run = await planned(bench, continue_from=None)
    assert await fetch_start(store, run, tmp_path / "start") is None
    assert not (tmp_path / "start").exists()


@pytest.mark.parametrize(
    ("told", "train", "words"),
    [
        (
            {"base_revision": "xyz"},
            {},
            "was trained on some/model at xyz, this run's base is some/model at abc",
        ),
        ({"quantization": "nf4"}, {}, "trained on a base that is nf4; train by method qlora"),
        ({}, {"method": "qlora"}, "trained on a base that is unquantised; train by method lora"),
        (None, {}, "is not in the store; name the model_id of a completed run"),
        ({}, {"continue_from": "other-0123456789ab"}, "is no model of helpdesk"),
    ],
)
async def test_an_adapter_that_does_not_belong_is_refused(bench, tmp_path: Path, told, train, words):
    store, run = await planned(bench, told=told, **train)
    with pytest.raises(RunFailed, match=words) as caught:
        await fetch_start(store, run, tmp_path / "start")
    assert caught.value.field == "train.continue_from"

"""Files over the control API: a run's manifest and model, and a dataset version's tokenizer."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from tunewheel_contracts.formats.dataset import TokenizerUse
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_testing.datasets import put_dataset
from tunewheel_testing.story import example

FILES = {"adapter_config.json": b"{}", "deep/adapter_model.safetensors": b"weights" * 1000}


@pytest.fixture
async def manifest(state: Any, desk: Any, store: Any, tmp_path: Path) -> RunManifest:
    """The manifest of a completed run, whose model is in the store."""
    refs = [await store.put(f"adapters/desk-1/{name}", data) for name, data in FILES.items()]
    told = RunManifest.model_validate(example("run-manifest", "planned-and-measured"))
    adapter = told.adapter.model_copy(update={"path": "adapters/desk-1", "files": tuple(refs)})
    told = told.model_copy(update={"run_id": "run-1", "project": "desk", "adapter": adapter})
    ref = await store.put("runs/run-1/manifest.json", told.model_dump_json().encode())
    for event in desk.turn():
        if event.data.type == "train.completed":
            event = desk.say("train.completed", **event.data.model_dump() | {"manifest": ref})
        state.apply(event)
    return told


async def test_a_completed_run_tells_its_manifest_and_gives_its_files(manifest: RunManifest, ask: Any):
    for asked in ("run-1", "latest"):
        found = (await ask(f"/projects/desk/runs/{asked}/manifest")).json()
        assert RunManifest.model_validate(found) == manifest
    for name, data in FILES.items():
        answer = await ask(f"/projects/desk/runs/run-1/files/{name}")
        assert answer.content == data


@pytest.mark.parametrize(
    "name", ["none", "../../runs/run-1/manifest.json", "adapters/desk-1/adapter_config.json"]
)
async def test_no_other_file_of_the_store_is_given(manifest: RunManifest, ask: Any, name: str):
    answer = await ask(f"/projects/desk/runs/run-1/files/{name.replace('/', '%2F')}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "name")
    assert "adapter_config.json" in answer.json()["error"]["message"]


async def test_files_that_are_gone_are_410_and_a_run_without_a_model_is_409(
    manifest: RunManifest, state: Any, desk: Any, store: Any, ask: Any
):
    await store.delete(["adapters/desk-1/adapter_config.json"])
    assert (await ask("/projects/desk/runs/run-1/files/adapter_config.json")).status_code == 410
    await store.delete(["runs/run-1/manifest.json"])
    assert (await ask("/projects/desk/runs/run-1/manifest")).status_code == 410
    desk.run_id = "run-2"
    state.apply(desk.started())
    answer = await ask("/projects/desk/runs/run-2/manifest")
    assert (answer.status_code, answer.json()["error"]["param"]) == (409, "run_id")


@pytest.mark.parametrize("pinned", [True, False])
async def test_a_version_gives_the_tokenizer_that_counted_it(
    state: Any, desk: Any, store: Any, ask: Any, pinned: bool
):
    sha = "a" * 64
    await store.put(f"tokenizers/{sha}/tokenizer.json", b"{}")
    use = TokenizerUse(base_model="m", sha256=sha if pinned else None)
    _, ref = await put_dataset(store, desk.spec(), dataset_id="ds-1", tokenizer=use)
    told = desk.versioned().data.model_dump() | {"manifest": ref, "dataset_id": "ds-1"}
    state.apply(desk.say("dataset.versioned", **told))
    answer = await ask("/projects/desk/datasets/ds-1/tokenizer")
    if not pinned:
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "dataset_id")
        return
    with ZipFile(BytesIO(answer.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"tokenizer.json": b"{}"}

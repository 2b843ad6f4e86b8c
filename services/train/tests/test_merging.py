"""A merged model answers as its adapter does, or is not written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel
from tunewheel_train import export, merging
from tunewheel_train.datasets import encode_examples
from tunewheel_train.merging import NotEqual, compare, export_merged, log_probabilities


@pytest.fixture
def prompts(tiny, conversation_of) -> list[tuple[int, ...]]:
    rows = [conversation_of(number) for number in range(20)]
    return [example.input_ids for example in encode_examples(rows, tiny[1], max_tokens=512)[0]]


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_a_merged_model_answers_as_its_adapter(trained, tiny_base, tmp_path: Path, prompts, method):
    quantization = "nf4" if method == "qlora" else None
    parity = export_merged(
        tiny_base, trained(method)[0].job.output_dir, tmp_path / "merged", prompts=prompts,
        quantization=quantization,
    )  # fmt: skip
    assert parity.prompts == 20
    assert parity.mean_difference < parity.tolerance == 1e-3
    assert parity.same_choice > 0.99
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())


def test_merging_changed_the_model(trained, tiny_base, tmp_path: Path, prompts):
    export_merged(tiny_base, trained("lora")[0].job.output_dir, tmp_path / "merged", prompts=prompts[:2])
    merged, _ = load_base(BaseModel("m", tmp_path / "merged", "r"), dtype="float32")
    base, _ = load_base(tiny_base, dtype="float32")
    parity = compare(
        [log_probabilities(base, ids) for ids in prompts],
        [log_probabilities(merged, ids) for ids in prompts],
        1e-3,
    )
    assert parity.mean_difference > 10 * parity.tolerance


def test_a_merge_that_differs_leaves_nothing(trained, tiny_base, tmp_path: Path, prompts, monkeypatch):
    original = merging._merged

    def spoilt(*arguments):
        model = original(*arguments)
        model.get_input_embeddings().weight.data += 0.5
        return model

    monkeypatch.setattr(merging, "_merged", spoilt)
    with pytest.raises(NotEqual, match=r"differ from the adapter's by \d"):
        export_merged(tiny_base, trained("lora")[0].job.output_dir, tmp_path / "merged", prompts=prompts[:2])
    assert list(tmp_path.iterdir()) == []


async def published(bench, trained):
    from tunewheel_contracts.formats.run import BaseModelRef
    from tunewheel_train import adapters
    from tunewheel_train.runs import Result, plan_run

    made = await bench()
    run, outcome = trained("lora")
    told = json.loads((run.job.output_dir / "tunewheel.json").read_text())
    base = BaseModelRef(name=told["base_model"], revision=told["base_revision"])
    planned = plan_run(made.manifest, made.event.manifest, base)
    await adapters.publish(made.store, planned, run.job.output_dir, Result(outcome, planned.recipe))
    return planned.run_id


async def test_a_run_is_exported_from_the_store(bench, trained, tmp_path: Path, monkeypatch, capsys):
    import asyncio

    run_id = await published(bench, trained)
    monkeypatch.setenv("TUNEWHEEL_STORE_URL", f"file://{tmp_path}/store")
    monkeypatch.setenv("TUNEWHEEL_CACHE_DIR", str(tmp_path / "cache"))
    assert await asyncio.to_thread(export.main, [run_id, str(tmp_path / "out" / "merged")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parity"]["prompts"] == 20
    assert (tmp_path / "out" / "merged" / "model.safetensors").is_file()
    assert await asyncio.to_thread(export.main, ["run-none", str(tmp_path / "out" / "none")]) == 1
    assert "name a run that is complete" in capsys.readouterr().err
    assert not (tmp_path / "out" / "none").exists()

"""Forms of the adapter, and going on from one."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_train.errors import RunFailed
from tunewheel_train.trainers.trl_config import optimizer_name

NIGHTLY = pytest.mark.nightly("matrices")


@pytest.mark.parametrize(
    "options",
    [
        *(pytest.param(one, marks=NIGHTLY) for one in ({"rslora": True}, {"dora": True})),
        {"dora": True, "rslora": True},
    ],
    ids=str,
)
def test_forms_of_lora_learn_and_say_what_they_are(case, options):
    run = case(**options, epochs=2.0)
    outcome = run.train()
    assert outcome.metrics["final_loss"] < outcome.metrics["first_loss"] - 0.5
    config = json.loads((run.job.output_dir / "adapter_config.json").read_text())
    assert config["use_rslora"] is options.get("rslora", False)
    assert config["use_dora"] is options.get("dora", False)
    magnitudes = [name for name in run.weights() if "magnitude" in name]
    assert bool(magnitudes) is options.get("dora", False)


def test_rslora_scales_by_the_root_of_the_rank(tiny_base):
    from tunewheel_contracts.formats.recipe import TrainSpec
    from tunewheel_train.model import modeling

    model, _ = modeling.load(tiny_base, TrainSpec(rank=4, alpha=8, rslora=True), precision="float32")
    layer = next(m for m in model.modules() if hasattr(m, "lora_A"))
    assert layer.scaling["default"] == pytest.approx(8 / math.sqrt(4))


def test_a_4_bit_base_is_quantised_twice(tiny_base):
    from bitsandbytes.nn import Linear4bit
    from tunewheel_contracts.formats.recipe import TrainSpec
    from tunewheel_train.model import modeling

    model, _ = modeling.load(tiny_base, TrainSpec(method=TrainMethod.QLORA, rank=4), precision="float32")
    states = [m.weight.quant_state for m in model.modules() if isinstance(m, Linear4bit)]
    assert len(states) == 14
    assert {(state.quant_type, state.nested) for state in states} == {("nf4", True)}


@pytest.mark.parametrize(
    ("method", "cuda", "name"),
    [
        ("qlora", True, "paged_adamw_8bit"),
        ("qlora", False, "adamw_torch"),
        ("lora", True, "adamw_torch_fused"),
        ("full", True, "adamw_torch_fused"),
        ("full", False, "adamw_torch"),
    ],
)
def test_moments_are_paged_in_8_bit_where_a_gpu_is_short_of_memory(method: str, cuda: bool, name: str):
    assert optimizer_name(TrainMethod(method), cuda=cuda) == name


def test_a_continued_adapter_begins_where_the_first_ended(trained, case):
    first, outcome = trained("lora")
    run = case(start_from=first.job.output_dir)
    again = run.train()
    assert again.metrics["first_loss"] < outcome.metrics["first_loss"] - 0.5
    assert not torch.equal(*(r.weights()[next(iter(first.weights()))] for r in (first, run)))


def test_a_run_that_continues_from_the_champion_learns_new_rows_and_a_sample(
    trained, case, conversation_of, tmp_path: Path
):
    learnt = tmp_path / "learnt.parquet"
    pl.DataFrame([conversation_of(number) for number in range(16)]).write_parquet(learnt)
    start = trained("lora")[0].job.output_dir
    run = case(start_from=start, learnt_path=learnt, continue_from="champion", rehearsal=0.5)
    outcome = run.train()
    rehearsed = outcome.metrics["examples"] - 8
    assert 4 <= rehearsed <= 12
    assert outcome.spared_steps == 6 - outcome.steps > 0
    none = case("none", start_from=start, learnt_path=learnt, continue_from="champion", rehearsal=0.0)
    assert none.train().metrics["examples"] == 8


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"rank": 8}, "train.rank", "is 8, but the adapter to continue from has 4; set it to 4"),
        ({"rslora": True}, "train.rslora", "has False"),
    ],
)
def test_an_adapter_of_another_shape_names_the_field(trained, case, changes, field, words):
    with pytest.raises(RunFailed, match=words) as caught:
        case(start_from=trained("lora")[0].job.output_dir, **changes).train()
    assert caught.value.field == field


def test_a_continued_adapter_has_to_adapt_the_same_layers(case):
    narrow = case("narrow", target_modules=("v_proj", "q_proj"), epochs=0.1)
    narrow.train()
    with pytest.raises(RunFailed, match=r"continue from has, \[q_proj, v_proj\]; set it to that") as caught:
        case(start_from=narrow.job.output_dir).train()
    assert caught.value.field == "train.target_modules"
    case(start_from=narrow.job.output_dir, target_modules=("q_proj", "v_proj"), epochs=0.1).train()


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_continued_adapter_is_trained_by_the_new_recipes_dropout(trained, tiny_base, dropout):
    from tunewheel_contracts.formats.recipe import TrainSpec
    from tunewheel_train.model import modeling

    recipe = TrainSpec(rank=4, alpha=8, dropout=dropout)
    directory = trained("lora", 0.1)[0].job.output_dir
    model, _ = modeling.load(tiny_base, recipe, precision="float32", start_from=directory)
    found = {m.p for name, m in model.named_modules() if "lora_dropout" in name and hasattr(m, "p")}
    assert found == ({dropout} if dropout else set())


def test_an_adapter_that_is_broken_or_of_another_size_names_the_field(trained, case, tmp_path: Path):
    from tunewheel_testing.tiny import write_tiny_model

    broken = Path(shutil.copytree(trained("lora")[0].job.output_dir, tmp_path / "broken"))
    (broken / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunFailed, match="safetensors") as caught:
        case(start_from=broken).train()
    assert caught.value.field == "train.continue_from"
    wide = write_tiny_model(tmp_path / "wide", hidden_size=64)
    with pytest.raises(RunFailed, match="name an adapter of it") as caught:
        case(start_from=trained("lora")[0].job.output_dir, base_model=str(wide)).train()
    assert caught.value.field == "train.continue_from"

"""The recipe on a tiny model: it learns, and an interrupted run ends where an uninterrupted one does."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from tunewheel_basemodel.loading import check_adapter
from tunewheel_train import checkpoints
from tunewheel_train.errors import RunFailed, RunStopped
from tunewheel_train.progress import Progressed, Started, Warned
from tunewheel_train.recipe import train


def weights(arguments) -> dict[str, torch.Tensor]:
    (file,) = arguments["output_dir"].glob("*.safetensors")
    return load_file(file)


def stop_after(arguments, step: int) -> None:
    """Ask for a stop once ``step`` steps are done, as SIGTERM would."""
    seen: list[int] = []
    arguments["report"] = lambda message: isinstance(message, Progressed) and seen.append(message.step)
    # The step that is running when the wish comes is still finished.
    arguments["should_stop"] = lambda: len(seen) >= step - 1
    with pytest.raises(RunStopped) as caught:
        train(**arguments)
    assert caught.value.step == step


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_every_method_learns_and_leaves_safetensors(recipe, method):
    arguments = recipe(method=method, epochs=4.0)
    messages = []
    outcome = train(**arguments | {"report": messages.append})
    assert outcome.metrics["final_loss"] < outcome.metrics["first_loss"] - 1
    assert outcome.steps == 24
    assert outcome.tokens == 4 * sum(m.tokens_per_epoch for m in messages if isinstance(m, Started))
    assert [m.step for m in messages if isinstance(m, Progressed)] == list(range(1, 25))
    assert not [f for f in arguments["output_dir"].iterdir() if f.suffix in {".bin", ".pt", ".pth"}]
    described = json.loads((arguments["output_dir"] / "tunewheel.json").read_text())
    assert described["quantization"] == ("nf4" if method == "qlora" else None)
    assert described["base_revision"].startswith("sha256:")


def test_an_adapter_is_peft_format_and_names_the_base_not_its_place(recipe):
    arguments = recipe(method="lora")
    train(**arguments)
    config = check_adapter(arguments["output_dir"])
    assert config["base_model_name_or_path"] == arguments["base_model"]
    assert config["target_modules"] == sorted(config["target_modules"])
    assert {p.name for p in arguments["output_dir"].iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "tunewheel.json",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("step", [1, 3])
def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(recipe, method, step):
    whole, broken = recipe("whole", method=method), recipe("broken", method=method)
    train(**whole)
    stop_after(broken, step)
    resumed = recipe("broken", method=method)
    messages = []
    outcome = train(**resumed | {"report": messages.append})
    assert [m.resumed_from_step for m in messages if isinstance(m, Started)] == [step]
    assert outcome.resumed_from_steps == (step,)
    expected, found = weights(whole), weights(resumed)
    assert set(expected) == set(found)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_resumed_run_counts_all_its_tokens(recipe):
    whole = train(**recipe("whole"))
    stop_after(recipe("broken"), 3)
    assert train(**recipe("broken")).tokens == whole.tokens


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (checkpoints.WEIGHTS, lambda content: content[: len(content) // 2]),
        (checkpoints.OPTIMIZER, lambda content: content[:-1] + bytes([content[-1] ^ 1])),
        (checkpoints.MANIFEST, lambda _: b"{"),
        (checkpoints.STATE, lambda _: None),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(recipe, file, damage):
    whole, broken = recipe("whole"), recipe("broken")
    train(**whole)
    stop_after(broken, 5)
    newest, before = checkpoints.candidates(broken["work_dir"])
    assert [checkpoints.step_of(path) for path in (newest, before)] == [5, 4]
    content = damage((newest / file).read_bytes())
    (newest / file).unlink() if content is None else (newest / file).write_bytes(content)
    outcome = train(**recipe("broken"))
    assert outcome.resumed_from_steps == (4,)
    assert all(torch.equal(value, weights(broken)[name]) for name, value in weights(whole).items())


def test_only_the_last_two_checkpoints_are_kept(recipe):
    arguments = recipe(checkpoint_steps=1)
    train(**arguments)
    assert [checkpoints.step_of(p) for p in checkpoints.candidates(arguments["work_dir"])] == [6, 5]


def test_no_checkpoint_holds_a_pickle(recipe):
    arguments = recipe()
    train(**arguments)
    names = {path.suffix for path in arguments["work_dir"].rglob("*") if path.is_file()}
    assert names == {".safetensors", ".json"}


def test_packed_and_padded_training_agree(recipe):
    packed, padded = recipe("packed", packed=True), recipe("padded", packed=False)
    ours, stock = train(**packed), train(**padded)
    assert ours.tokens == stock.tokens
    assert ours.metrics["final_loss"] == pytest.approx(stock.metrics["final_loss"], abs=1e-3)
    for name, value in weights(padded).items():
        torch.testing.assert_close(weights(packed)[name], value, rtol=0.05, atol=2e-3)


def test_micro_batches_change_nothing_but_memory(recipe):
    one, four = recipe("one", micro_batch_size=1), recipe("four", micro_batch_size=4)
    assert train(**one).metrics["final_loss"] == pytest.approx(train(**four).metrics["final_loss"], abs=1e-4)


def test_a_base_model_that_does_not_exist_names_the_field(recipe, tmp_path: Path):
    with pytest.raises(RunFailed, match="give the path") as caught:
        train(**recipe(base_model=str(tmp_path / "nowhere")))
    assert caught.value.field == "base_model"


def test_target_modules_that_the_base_lacks_name_the_field(recipe):
    with pytest.raises(RunFailed, match="use 'all-linear'") as caught:
        train(**recipe(target_modules=("no_such_layer",)))
    assert caught.value.field == "train.target_modules"


def test_a_loss_that_is_no_number_ends_the_run_at_once_and_names_the_learning_rate(recipe, monkeypatch):
    from tunewheel_train.loss import SummedCrossEntropy

    calls = []
    original = SummedCrossEntropy.apply

    def diverging(logits, targets):
        calls.append(len(targets))
        return original(logits, targets) * (float("nan") if len(calls) > 4 else 1.0)

    monkeypatch.setattr(SummedCrossEntropy, "apply", diverging)
    arguments = recipe()
    with pytest.raises(RunFailed, match="lower it") as caught:
        train(**arguments)
    assert (caught.value.field, caught.value.step) == ("train.learning_rate", 3)
    assert [checkpoints.step_of(p) for p in checkpoints.candidates(arguments["work_dir"])] == [2]


def test_refused_examples_are_reported(recipe, tmp_path: Path):
    rows = pl.read_parquet(recipe()["train_path"]).to_dicts()
    rows[0]["messages"][1]["content"] = "word " * 400
    pl.DataFrame(rows).write_parquet(tmp_path / "long.parquet")
    messages = []
    train(**recipe(train_path=tmp_path / "long.parquet", max_tokens=128, report=messages.append))
    (warning,) = [m for m in messages if isinstance(m, Warned)]
    assert warning.reason.startswith("1 of 24 examples are not trained on; ex-000 has")

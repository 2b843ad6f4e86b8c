"""The recipe on a tiny model: it learns, and an interrupted run ends where an uninterrupted one does."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from tunewheel_basemodel.loading import check_adapter
from tunewheel_planner.calibration import Correction, key
from tunewheel_planner.devices import Device, processor
from tunewheel_planner.shapes import KNOWN
from tunewheel_train.errors import RunFailed
from tunewheel_train.preparation import Prepared, follow_plan, prepare
from tunewheel_train.progress import Planned, Progressed, Started, Warned
from tunewheel_train.shortage import is_disk_full
from tunewheel_train.trainers import checkpoints


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return set(found) == set(expected) and all(torch.equal(v, found[name]) for name, v in expected.items())


@pytest.fixture(scope="session")
def interrupted(cases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work directory of a LoRA run that was stopped after step 5: checkpoints 5 and 4."""
    stopped = cases(tmp_path_factory.mktemp("interrupted"))()
    stopped.stop_after(5)
    return stopped.job.work_dir


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_every_method_learns_and_leaves_safetensors(case, method):
    run = case(method=method, epochs=4.0, keep_checkpoints=3)
    outcome = run.train()
    assert outcome.metrics["final_loss"] < outcome.metrics["first_loss"] - 1
    assert outcome.steps == 24
    assert outcome.tokens == 4 * sum(m.tokens_per_epoch for m in run.heard(Started))
    assert [m.step for m in run.heard(Progressed)] == list(range(1, 25))
    assert outcome.usage.tokens_per_second > 0 < outcome.usage.peak_bytes
    assert not [f for f in run.job.output_dir.iterdir() if f.suffix in {".bin", ".pt", ".pth"}]
    assert [checkpoints.step_of(p) for p in checkpoints.candidates(run.job.work_dir)] == [24, 22, 20]
    described = json.loads((run.job.output_dir / "tunewheel.json").read_text())
    assert described["quantization"] == ("nf4" if method == "qlora" else None)
    assert described["base_revision"].startswith("sha256:")


def test_an_adapter_is_peft_format_and_names_the_base_not_its_place(trained):
    run, _ = trained("lora")
    config = check_adapter(run.job.output_dir)
    assert config["base_model_name_or_path"] == run.job.base_model
    assert config["target_modules"] == sorted(config["target_modules"])
    assert {p.name for p in run.job.output_dir.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "tunewheel.json",
    }  # fmt: skip


def test_a_run_is_planned_before_it_starts(trained):
    run, outcome = trained("lora")
    assert isinstance(run.messages[0], Planned)
    plan = run.messages[0].plan
    assert (plan.method, plan.device, plan.fits, plan.tokens) == ("lora", "cpu", True, outcome.tokens)


def test_earlier_runs_of_its_size_on_this_device_correct_a_runs_plan(trained, tiny_base):
    run, _ = trained("lora")
    planned = run.messages[0].plan
    prepared = prepare(tiny_base, run.job, lambda message: None)
    told = []
    for name in (key(planned.device, planned.parameters), key(planned.device, 10 * planned.parameters)):
        job = run.job.model_copy(update={"corrections": {name: Correction(speed=2.0, memory=0.5, runs=3)}})
        follow_plan(job, prepared, "float32", told.append)
    corrected, of_others = (message.plan for message in told)
    assert (corrected.calibrated_by, corrected.speed_factor, corrected.memory_factor) == (3, 2.0, 0.5)
    assert corrected.peak_bytes == round(planned.memory.total * 0.5)
    assert of_others.calibrated_by == 0


def test_a_model_that_the_planner_does_not_know_is_trained_without_a_plan_and_told_of(case):
    told = []
    job = case().job.model_copy(update={"gradient_checkpointing": None})
    unknown = Prepared((), (), (), {"model_type": "mamba", "hidden_size": 64})
    assert follow_plan(job, unknown, "float32", told.append).gradient_checkpointing is False
    (warning,) = told
    assert isinstance(warning, Warned)
    assert warning.reason.startswith(
        "is trained without a plan: base_model: has a config.json that the planner"
    )


@pytest.mark.parametrize(
    ("method", "step", "dropout"),
    [
        pytest.param("lora", 1, 0.0, marks=pytest.mark.nightly("matrices")),
        pytest.param("lora", 3, 0.0, marks=pytest.mark.nightly("matrices")),
        ("lora", 3, 0.1),  # draws random numbers
        pytest.param("qlora", 3, 0.0, marks=pytest.mark.nightly("matrices")),
        ("full", 3, 0.0),
    ],
)
def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(trained, case, method, step, dropout):
    whole, outcome = trained(method, dropout)
    case(method=method, dropout=dropout).stop_after(step)
    resumed = case(method=method, dropout=dropout)
    again = resumed.train()
    assert [m.resumed_from_step for m in resumed.heard(Started)] == [step]
    assert again.resumed_from_steps == (step,)
    assert again.tokens == outcome.tokens
    losses = {m.step: m.loss for m in whole.heard(Progressed) if m.step > step}
    assert {m.step: m.loss for m in resumed.heard(Progressed)} == losses
    assert same(resumed.weights(), whole.weights())
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory  # it takes time and changes no result


def test_two_threads_give_the_same_adapter_twice(case):
    runs = [case(name, epochs=1 / 3) for name in ("first", "second")]
    torch.set_num_threads(2)
    for run in runs:
        run.train()
    assert same(runs[0].weights(), runs[1].weights())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_moments_paged_in_8_bit_come_back_from_a_checkpoint(case):
    wide = {"method": "qlora", "rank": 256, "alpha": 256}  # 8-bit moments begin at 4,096 weights
    whole = case("whole", **wide)
    whole.train()
    case(**wide).stop_after(3)
    newest = checkpoints.latest(case(**wide).job.work_dir)
    assert newest is not None
    saved = load_file(newest / checkpoints.OPTIMIZER)
    assert any(value.dtype == torch.uint8 for value in saved.values())
    resumed = case(**wide)
    assert resumed.train().resumed_from_steps == (3,)
    assert same(resumed.weights(), whole.weights())


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (checkpoints.WEIGHTS, lambda content: content[: len(content) // 2]),
        (checkpoints.OPTIMIZER, lambda content: content[:-1] + bytes([content[-1] ^ 1])),
        (checkpoints.MANIFEST, lambda _: b"{"),
        (checkpoints.STATE, lambda _: None),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(interrupted, tmp_path, file, damage):
    work_dir = Path(shutil.copytree(interrupted, tmp_path / "work"))
    newest, before = checkpoints.candidates(work_dir)
    assert [checkpoints.step_of(path) for path in (newest, before)] == [5, 4]
    assert checkpoints.latest(work_dir) == newest
    content = damage((newest / file).read_bytes())
    (newest / file).unlink() if content is None else (newest / file).write_bytes(content)
    assert checkpoints.latest(work_dir) == before


def test_a_run_whose_newest_checkpoint_is_damaged_ends_with_the_same_weights(interrupted, trained, case):
    run = case()
    shutil.copytree(interrupted, run.job.work_dir)
    newest = checkpoints.candidates(run.job.work_dir)[0] / checkpoints.WEIGHTS
    newest.write_bytes(newest.read_bytes()[:100])
    assert run.train().resumed_from_steps == (4,)
    assert same(run.weights(), trained("lora")[0].weights())


def test_a_checkpoint_of_another_method_is_not_gone_on_from(interrupted):
    assert checkpoints.latest(interrupted, "lora") is not None
    assert checkpoints.latest(interrupted, "qlora") is None


def test_the_last_two_checkpoints_are_kept_without_a_pickle(trained):
    work_dir = trained("lora")[0].job.work_dir
    assert [checkpoints.step_of(p) for p in checkpoints.candidates(work_dir)] == [6, 4]
    suffixes = {path.suffix for path in work_dir.rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".json"}


def test_packed_and_padded_training_agree(trained, case, monkeypatch):
    from tunewheel_train.trainers.loss import TokenCrossEntropy

    run, packed = trained("lora")
    padded = case(packed=False)
    monkeypatch.delattr(TokenCrossEntropy, "forward")  # of packed rows alone
    stock = padded.train()
    assert packed.tokens == stock.tokens
    assert packed.metrics["final_loss"] == pytest.approx(stock.metrics["final_loss"], abs=1e-3)
    for name, value in padded.weights().items():
        torch.testing.assert_close(run.weights()[name], value, rtol=0.05, atol=2e-3)


def test_a_model_that_takes_no_packed_rows_is_trained_without_and_says_so(trained, case, monkeypatch):
    trained("lora")
    monkeypatch.setattr("tunewheel_train.model.attention._HIDDEN", 0.0)  # as if it were not causal
    run = case()
    assert run.train().metrics["final_loss"] == pytest.approx(
        trained("lora")[1].metrics["final_loss"], abs=1e-3
    )
    (warning,) = run.heard(Warned)
    assert warning.reason.startswith("is trained in padded batches")
    assert trained("lora")[0].heard(Warned) == []


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({}, 2),  # of two examples each
        ({"micro_batch_size": 4}, 2),  # the parts of a step
        ({"micro_batch_size": 1}, 4),
        ({"gradient_checkpointing": True}, 4),  # and once more for their gradients
    ],
    ids=str,
)
def test_micro_batches_and_recomputing_change_nothing_but_memory(trained, case, monkeypatch, change, passes):
    from transformers.models.llama.modeling_llama import LlamaMLP

    expected = trained("lora")[1].metrics["final_loss"]
    forward, seen = LlamaMLP.forward, []

    def counted(self, x):
        seen.append(self.training)
        return forward(self, x)

    monkeypatch.setattr(LlamaMLP, "forward", counted)
    assert case(**change).train().metrics["final_loss"] == pytest.approx(expected, abs=1e-4)
    assert sum(seen) == passes * 6 * 2  # by six steps and two layers


def test_a_run_is_done_as_it_was_planned_unless_it_says_how(trained, tiny_base, monkeypatch):
    run, _ = trained("lora")
    prepared = prepare(tiny_base, run.job, lambda message: None)

    def planned_in(memory_bytes: int, **job: bool) -> tuple[bool | None, int]:
        device = processor(memory_bytes=memory_bytes, teraflops=1.0, bfloat16=False)
        monkeypatch.setattr("tunewheel_train.preparation.this_device", lambda *_: device)
        found = follow_plan(run.job.model_copy(update=job), prepared, "float32", lambda message: None)
        return found.gradient_checkpointing, found.recipe.micro_batch_size

    assert planned_in(64 << 30) == (False, 2)
    assert planned_in(1 << 20) == (True, 1)
    assert planned_in(1 << 20, gradient_checkpointing=False) == (False, 2)


def test_a_run_whose_processes_hold_parts_is_planned_for_its_part(case, tiny_base, monkeypatch):
    run = case(sharding="fsdp", batch_size=8, micro_batch_size=8)
    prepared = prepare(tiny_base, run.job, lambda message: None)
    large = KNOWN["meta-llama/Llama-3.2-1B-Instruct"]  # 5 GB in fp32
    monkeypatch.setattr("tunewheel_train.preparation.shape_of", lambda _: large)
    card = Device(name="card", kind="cuda", memory_gib=5.0, teraflops=10, bfloat16=False)
    monkeypatch.setattr("tunewheel_train.preparation.this_device", lambda *_: card)
    told = []
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr("tunewheel_train.trainers.handover.from_first", lambda plan: plan)  # no others run
    sharded = follow_plan(run.job, prepared, "float32", told.append)
    whole = follow_plan(run.job.model_copy(update={"sharding": "none"}), prepared, "float32", told.append)
    assert [message.plan.fits for message in told] == [True, False]
    assert (sharded.recipe.micro_batch_size, sharded.gradient_checkpointing) == (8, False)
    assert (whole.recipe.micro_batch_size, whole.gradient_checkpointing) == (1, True)


def test_both_stages_of_a_run_are_planned(case, pairs_path, tiny_base):
    preference = {"epochs": 1.0}
    run = case(preference=preference, preferences_path=pairs_path)
    alone = case(preference=preference | {"alone": True}, preferences_path=pairs_path)
    only = case()
    tokens = {}
    for name, one in {"both": run, "pairs": alone, "examples": only}.items():
        told = []
        follow_plan(one.job, prepare(tiny_base, one.job, told.append), "float32", told.append)
        tokens[name] = told[-1].plan.tokens
    assert tokens["both"] == tokens["pairs"] + tokens["examples"]
    assert min(tokens.values()) > 0


def test_a_base_model_that_does_not_exist_names_the_field(case, tmp_path: Path):
    with pytest.raises(RunFailed, match="give the path") as caught:
        case(base_model=str(tmp_path / "nowhere")).train()
    assert caught.value.field == "base_model"


@pytest.mark.parametrize(
    "targets", [("no_such",), ("no_such", "q_proj"), ("lm_head",), ("lm_head", "v_proj")]
)
def test_target_modules_that_cannot_be_adapted_name_the_field(case, targets):
    with pytest.raises(
        RunFailed, match=rf"names {targets[0]}, but .*are down_proj, .*'all-linear'"
    ) as caught:
        case(target_modules=targets).train()
    assert caught.value.field == "train.target_modules"


def test_a_loss_that_is_no_number_ends_the_run_and_names_learning_rate_and_records(
    case, conversation_of, tmp_path: Path, monkeypatch
):
    from tunewheel_train.trainers.loss import TokenCrossEntropy

    rows = [conversation_of(number) | {"record_ids": [f"rec-{number}"]} for number in range(24)]
    pl.DataFrame(rows).write_parquet(tmp_path / "with-records.parquet")
    calls = []
    original = TokenCrossEntropy.apply

    def diverging(logits, targets):
        calls.append(len(targets))
        return original(logits, targets) * (float("nan") if len(calls) > 4 else 1.0)

    monkeypatch.setattr(TokenCrossEntropy, "apply", diverging)
    run = case(train_path=tmp_path / "with-records.parquet")
    with pytest.raises(RunFailed, match="not finite; lower it") as caught:
        run.train()
    assert (caught.value.field, caught.value.step) == ("train.learning_rate", 3)
    assert len(caught.value.record_ids) == 4
    assert set(caught.value.record_ids) < {f"rec-{number}" for number in range(24)}
    assert [checkpoints.step_of(p) for p in checkpoints.candidates(run.job.work_dir)] == [2]


def test_gradients_that_are_no_numbers_end_the_run_at_their_own_step_be_it_the_last(case, monkeypatch):
    from tunewheel_train.trainers.loss import TokenCrossEntropy

    calls = []
    original = TokenCrossEntropy.apply

    def diverging(logits, targets):
        calls.append(len(targets))
        losses = original(logits, targets)
        if len(calls) > 2 * 5:
            losses.register_hook(lambda gradient: gradient * float("nan"))
        return losses

    monkeypatch.setattr(TokenCrossEntropy, "apply", diverging)
    run = case()
    with pytest.raises(RunFailed, match="made the gradients diverge to a value that is not finite") as caught:
        run.train()
    assert (caught.value.field, caught.value.step) == ("train.learning_rate", 6)
    assert len(calls) == 2 * 6
    assert not run.job.output_dir.exists()


def test_a_loss_that_left_before_an_interruption_ends_the_run_after_it(case, monkeypatch):
    from tunewheel_train.trainers.loss import TokenCrossEntropy

    calls = []
    original = TokenCrossEntropy.apply

    def diverging(logits, targets):
        calls.append(len(targets))
        return original(logits, targets) * (10.0 if len(calls) > 2 * 6 else 1.0)

    monkeypatch.setattr(TokenCrossEntropy, "apply", diverging)
    case(epochs=4.0).stop_after(8)
    with pytest.raises(RunFailed, match=r"made the loss diverge from \d") as caught:
        case(epochs=4.0).train()
    assert caught.value.field == "train.learning_rate"


def test_a_full_disk_leaves_no_whole_checkpoint_and_no_adapter(case):
    run = case()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(Exception, match=r"large|os error 27") as caught:
            run.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert is_disk_full(caught.value)
    assert list(run.job.work_dir.iterdir()) == []
    assert not run.job.output_dir.exists()


def test_a_disk_that_is_too_small_leaves_no_whole_checkpoint_and_no_adapter(case, small_disk: Path):
    run = case(method="full", output_dir=small_disk / "adapter", work_dir=small_disk / "work")
    with pytest.raises(Exception, match=r"[Nn]o space left on device|os error 28") as caught:
        run.train()
    assert is_disk_full(caught.value)
    assert list(run.job.work_dir.iterdir()) == []
    assert not run.job.output_dir.exists()


def without_embeddings(model: Path) -> None:
    """The tokenizer's last tokens have none."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 80}))


def of_short_context(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 16}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (of_short_context, r"leaves none of 24 examples \(ex-000 has \d+ tokens, more than the base model's"),
        (without_embeddings, r"has 80 embeddings, but its tokenizer writes token \d+"),
    ],
)
def test_what_the_base_cannot_take_ends_the_run_before_it_starts(case, tiny_base, tmp_path, spoil, words):
    model = shutil.copytree(tiny_base.path, tmp_path / "model")
    spoil(model)
    run = case(base_model=str(model))
    with pytest.raises(RunFailed, match=words) as caught:
        run.train()
    assert caught.value.field == "base_model"
    assert run.messages == []
    assert not run.job.output_dir.exists()
    assert not run.job.work_dir.exists()


def test_refused_examples_are_reported(case, tmp_path: Path):
    rows = pl.read_parquet(case().job.train_path).to_dicts()
    rows[0]["messages"][1]["content"] = "word " * 400
    pl.DataFrame(rows).write_parquet(tmp_path / "long.parquet")
    run = case(train_path=tmp_path / "long.parquet", max_tokens=128)
    run.train()
    (warning,) = run.heard(Warned)
    assert warning.reason.startswith("1 of 24 examples are not trained on; ex-000 has")

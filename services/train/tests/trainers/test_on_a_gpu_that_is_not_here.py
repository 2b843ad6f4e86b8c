"""The loss of each trainer, made as a run makes it, on tensors of ``cuda:0`` that hold no data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from accelerate import Accelerator
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from transformers import TrainingArguments
from trl.trainer.grpo_trainer import GRPOTrainer
from tunewheel_train.trainers.dpo_trainer import DpoTrainer
from tunewheel_train.trainers.grpo_trainer import GrpoTrainer
from tunewheel_train.trainers.kto_trainer import KtoTrainer
from tunewheel_train.trainers.stepping import on_device

GPU = torch.device("cuda:0")


class Seen(Exception):
    """The device of a loss; nothing is trained."""


def seen(loss: torch.Tensor) -> None:
    raise Seen(loss.device)


def for_the_log(tensor: torch.Tensor) -> Any:
    """Return numbers in place of ``tensor``, because TRL asks whether one is above zero."""
    return np.ones(tensor.shape)


def move(model: torch.nn.Module) -> None:
    """Put parameters and buffers without data on the GPU in place of the model's."""
    for module in model.modules():
        for name, it in module._parameters.items():
            if it is not None:
                data = torch.empty(it.shape, dtype=it.dtype, device=GPU)
                module._parameters[name] = torch.nn.Parameter(data, requires_grad=it.requires_grad)
        for name, it in module._buffers.items():
            module._buffers[name] = None if it is None else torch.empty_like(it, device=GPU)


def loss_on_gpu(trainer: Any, *_: Any) -> None:
    """Compute the loss of the first micro-batch. KTO's ends at its KL estimate, where the policy, the
    reference and the mismatched answers have been computed: what follows depends on how many answers are
    desirable."""
    step = trainer.cut([trainer.course.items[n] for n in trainer.course.steps[0]])
    # Numbers that a trainer reads for its log are symbols here.
    fake = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(allow_scalar_outputs=True))
    with fake, pytest.MonkeyPatch.context() as patch:
        for owner in (TrainingArguments, Accelerator):
            patch.setattr(owner, "device", GPU)
        move(trainer.model)
        trainer.accelerator.gather_for_metrics = for_the_log if isinstance(trainer, DpoTrainer) else seen
        model = trainer.model.train()
        if isinstance(trainer, KtoTrainer):
            step = trainer._measured(model, step)
        piece, weight = step.pieces[0]
        loss = trainer.loss_of(model, on_device(piece, GPU), weight)
        assert loss.requires_grad
        seen(loss)


@pytest.fixture(autouse=True)
def without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernels need data."""
    for module in ("trainer.utils", "kernels.chunked_logprob"):
        monkeypatch.setattr(f"trl.{module}._use_triton", lambda device: False)


@pytest.mark.parametrize(
    "method",
    ["kto", *(pytest.param(one, marks=pytest.mark.nightly("matrices")) for one in ("sft", "dpo", "orpo"))],
)
def test_a_trainers_loss_is_computed_where_the_model_is(
    case: Any, pairs_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewheel_train.stages._run", loss_on_gpu)
    chosen = {"preference": {"method": method, "beta": 0.1, "alone": True}} if method != "sft" else {}
    given = {"preferences_path": pairs_path} if method != "sft" else {}
    with pytest.raises(Seen) as found:
        case(**chosen, **given).train()
    assert found.value.args == (GPU,)


ANSWERS = ([5, 6], [7], [5, 6, 7])
"""Tokens of answers of different lengths. They cannot be drawn here, because where an answer ends depends on
data; nor can they be scored."""
LABELS = ['{"category": "billing"}', '{"category": "battery"}']
REWARD = {
    "reward": {"steps": 1, "prompts": 4, "answers": 4}, "validation_fraction": 0.45,
    "rewarded": {
        "task": {
            "system_prompt": "Answer.", "max_output_tokens": 3,
            "output_rules": [{"rule": "allowed_values", "values": LABELS}],
        },
        "metrics": ["label_accuracy"],
    },
}  # fmt: skip


def given_answers(trainer: Any, prompts: list[list[dict[str, str]]]) -> tuple[Any, ...]:
    asked = [trainer.processing_class.apply_chat_template(one)["input_ids"] for one in prompts]
    answers = [ANSWERS[number % len(ANSWERS)] for number in range(len(asked))]
    said = [[{"role": "assistant", "content": LABELS[number % 2]}] for number in range(len(asked))]
    return asked, answers, None, said, None, {}, None, []


def given_rewards(trainer: Any, rows: Any, prompts: list[Any], *_: Any) -> torch.Tensor:
    return torch.ones(len(prompts), 1, device=GPU)


def step_on_gpu(trainer: Any, *_: Any) -> None:
    """Compute advantages, the reference and the loss of the first micro-batch. Answers and rewards are given,
    and the stage of the examples is left out."""
    if trainer.course.stage == "examples":
        return
    fake = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(allow_scalar_outputs=True))
    with fake, pytest.MonkeyPatch.context() as patch:
        for owner in (TrainingArguments, Accelerator):
            patch.setattr(owner, "device", GPU)
        for name, same in (("nanmin", torch.min), ("nanmax", torch.max)):  # they branch on data
            patch.setattr(f"trl.trainer.grpo_trainer.{name}", same)
        move(trainer.model)
        model = trainer.model.train()
        trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
        rows = next(iter(trainer.get_train_dataloader()))
        loss = trainer.compute_loss(model, trainer._prepare_inputs(rows))
        assert loss.requires_grad
        seen(loss)


def test_grpos_step_is_computed_where_the_model_is(
    case: Any, conversation_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewheel_train.stages._run", step_on_gpu)
    monkeypatch.setattr("tunewheel_train.stages._example_metrics", lambda trainer: {"final_loss": 1.0})
    monkeypatch.setattr(GRPOTrainer, "_generate", given_answers)
    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", given_rewards)
    monkeypatch.setattr(GrpoTrainer, "begin", lambda trainer: None)
    path = tmp_path / "train.parquet"
    pl.DataFrame([conversation_of(number) for number in range(100)]).write_parquet(path)
    with pytest.raises(Seen) as found:
        case(train_path=path, **REWARD).train()
    assert found.value.args == (GPU,)

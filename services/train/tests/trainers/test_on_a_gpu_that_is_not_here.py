"""The loss of each trainer, made as a run makes it, on tensors of ``cuda:0`` that hold no data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from transformers import TrainingArguments
from tunewheel_train.trainers.dpo_trainer import DpoTrainer
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


@pytest.mark.parametrize(
    "method",
    ["kto", *(pytest.param(one, marks=pytest.mark.nightly("matrices")) for one in ("sft", "dpo", "orpo"))],
)
def test_a_trainers_loss_is_computed_where_the_model_is(
    case: Any, pairs_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewheel_train.stages._run", loss_on_gpu)
    for module in ("trainer.utils", "kernels.chunked_logprob"):  # its Triton kernels need data
        monkeypatch.setattr(f"trl.{module}._use_triton", lambda device: False)
    chosen = {"preference": {"method": method, "beta": 0.1, "alone": True}} if method != "sft" else {}
    given = {"preferences_path": pairs_path} if method != "sft" else {}
    with pytest.raises(Seen) as found:
        case(**chosen, **given).train()
    assert found.value.args == (GPU,)

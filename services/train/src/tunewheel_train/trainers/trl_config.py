"""What TRL's trainers are told: the recipe's numbers, and the rows in TRL's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tunewheel_basemodel.precision import Precision
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.recipe import PreferenceSpec

from tunewheel_train.job import Job
from tunewheel_train.model.process_group import group_backend


def optimizer_name(method: TrainMethod, *, cuda: bool) -> str:
    """Return AdamW. On a GPU, a method with paged moments has 8-bit moments that move to main memory when
    GPU memory is short, and the others one kernel: PyTorch's default takes 4 more bytes per parameter."""
    if not cuda:
        return "adamw_torch"
    return "paged_adamw_8bit" if method.traits.paged_moments else "adamw_torch_fused"


def trl_arguments(
    job: Job, *, total_steps: int, learning_rate: float, precision: Precision
) -> dict[str, Any]:
    """Return the arguments of every trainer: one epoch over the planned steps, each item an optimizer
    step."""
    recipe, cuda = job.recipe, torch.cuda.is_available()
    constant = recipe.scheduler == "constant"
    recomputing = {"use_reentrant": False} if job.gradient_checkpointing else None
    return {
        "output_dir": str(job.work_dir),
        "num_train_epochs": 1,
        "max_steps": total_steps,
        "per_device_train_batch_size": 1,
        "learning_rate": learning_rate,
        "warmup_steps": round(recipe.warmup_fraction * total_steps),
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "lr_scheduler_type": "constant_with_warmup" if constant else recipe.scheduler,
        "optim": optimizer_name(recipe.method, cuda=cuda),
        "bf16": not recipe.method.traits.adapter and precision == "bfloat16",
        "gradient_checkpointing": bool(job.gradient_checkpointing),
        "gradient_checkpointing_kwargs": recomputing,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # ``ProgressCallback`` decides when
        "save_steps": recipe.checkpoint_steps,
        "save_only_model": True,  # Trainer's own checkpoints are not written
        "seed": recipe.seed,
        "use_cpu": not cuda,
        "ddp_backend": group_backend(),
        # Every adapter takes part in every pass; a search for others would walk the graph at each step.
        "ddp_find_unused_parameters": False,
        "average_tokens_across_devices": False,  # ``PlannedSteps`` weights the processes' shares itself
        # TRL adds a router's balance loss once per micro-batch, however many make up a step.
        "router_aux_loss_coef": 0.0,
        "dataloader_pin_memory": False,
        "report_to": [],
        "disable_tqdm": True,
        "max_length": None,
    }


def examples_config(common: dict[str, Any]) -> Any:
    """TRL's configuration of training on examples."""
    from trl.trainer.sft_config import SFTConfig

    return SFTConfig(**common, dataset_kwargs={"skip_prepare_dataset": True}, shuffle_dataset=False)


def pairs_arguments(common: dict[str, Any], preference: PreferenceSpec) -> dict[str, Any]:
    """Return the arguments of TRL's own trainers of preferences."""
    return common | {"beta": preference.beta, "remove_unused_columns": False}


def as_dataset(rows: Sequence[dict[str, Any]]) -> Any:
    """Rows as a ``datasets.Dataset``, which TRL's constructors ask for."""
    from datasets import Dataset

    return Dataset.from_list(list(rows))

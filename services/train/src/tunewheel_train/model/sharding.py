"""Shards one model over several processes: each holds a part of every weight (FSDP2, arXiv:2304.11277).

transformers shards while it loads, so no process ever holds the whole model. A LoRA adapter is small: every
process holds all of it, and its gradients are averaged. Files hold whole tensors, so a sharded run can go on
unsharded, and the other way round.
"""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.formats.recipe import TrainSpec


def shards_of(recipe: TrainSpec, *, sharding: str, processes: int) -> int:
    """Return into how many parts the model of ``recipe`` is cut; 1: every process holds all of it."""
    return processes if sharding == "fsdp" and why_whole(recipe) is None else 1


def why_whole(recipe: TrainSpec) -> str | None:
    """Return why a model cannot be sharded; None: it can."""
    if recipe.method.traits.quantization is not None:
        return "4-bit weights cannot be cut"
    if recipe.dora:
        return "dora needs the norms of whole weights"
    return None


def reshard(model: Any) -> None:
    """Drop the whole weights that a forward pass gathered, and put the parts back in their place."""
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()


def whole(tensor: Any) -> Any:
    """Return the whole of ``tensor``, with the parts of the other processes. All processes call this
    together."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(tensor: Any, pattern: Any) -> Any:
    """Return this process's part of the whole ``tensor``, sharded and placed like ``pattern``."""
    moved = tensor.to(pattern.device)
    if not hasattr(pattern, "full_tensor"):
        return moved
    from torch.distributed.tensor import distribute_tensor

    # every process has read the whole tensor, so nothing needs to be sent
    return distribute_tensor(moved, pattern.device_mesh, pattern.placements, src_data_rank=None)

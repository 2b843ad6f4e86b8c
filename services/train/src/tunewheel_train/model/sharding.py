"""One model over several processes, a part of every weight in each (FSDP2, arXiv:2304.11277).

transformers shards while it loads, so that no process ever holds the whole. A LoRA adapter is small: every
process keeps all of it, and its gradients are averaged. Files hold whole tensors, so a run that was sharded
goes on unsharded, and the other way round.
"""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.formats.recipe import TrainMethod, TrainSpec


def shards_of(recipe: TrainSpec, *, sharding: str, processes: int) -> int:
    """In how many parts the model of ``recipe`` lies; 1: every process holds all of it."""
    return processes if sharding == "fsdp" and why_whole(recipe) is None else 1


def why_whole(recipe: TrainSpec) -> str | None:
    """Why a model cannot be sharded; None where it can."""
    if recipe.method is TrainMethod.QLORA:
        return "4-bit weights cannot be cut"
    if recipe.dora:
        return "dora needs the norms of whole weights"
    return None


def reshard(model: Any) -> None:
    """Give the parts back their place: a forward pass leaves whole weights there that it gathered."""
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()


def whole(tensor: Any) -> Any:
    """``tensor`` with the parts that other processes hold; all of them call this together."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(tensor: Any, pattern: Any) -> Any:
    """The part of ``tensor``, which is whole, that this process holds of ``pattern``; on its device."""
    moved = tensor.to(pattern.device)
    if not hasattr(pattern, "full_tensor"):
        return moved
    from torch.distributed.tensor import distribute_tensor

    # every process has read the whole: nothing needs to be sent
    return distribute_tensor(moved, pattern.device_mesh, pattern.placements, src_data_rank=None)

"""Writes a finished model to files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from tunewheel_basemodel.locate import BaseModel
from tunewheel_basemodel.precision import Precision

from tunewheel_train.model.attention import leave_packed_attention
from tunewheel_train.model.projection import unfuse_lora
from tunewheel_train.model.sharding import reshard, whole


def save(trainer: Any, base: BaseModel, number: Precision, directory: Path) -> None:
    """Write safetensors to ``directory``: the adapter alone, or the whole model with its tokenizer.

    Processes that train together call this together; the first writes.
    """
    model, first = trainer.model, trainer.accelerator.is_main_process
    unfuse_lora(model)
    if first:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    if hasattr(model, "peft_config"):
        if "ref" in model.peft_config:
            model.delete_adapter("ref")
        if first:
            _save_adapter(model, base, directory)
        return
    leave_packed_attention(model)
    model.config.use_cache = True
    wanted = torch.bfloat16 if number == "bfloat16" else torch.float32
    weights = _whole_weights(model, wanted, keep=first)
    if first:
        model.config.distributed_config = None
        model.config.dtype = wanted
        model.save_pretrained(directory, state_dict=weights)
        trainer.processing_class.save_pretrained(directory)


def _whole_weights(model: Any, number: torch.dtype, *, keep: bool) -> dict[str, Any]:
    """Return the model's tensors in main memory, tied ones once; empty if ``keep`` is false."""
    reshard(model)
    tensors = model.state_dict(keep_vars=True)
    once: dict[int, Any] = {}
    for tensor in tensors.values():
        if id(tensor) not in once:
            gathered = whole(tensor.detach())
            once[id(tensor)] = _as_saved(gathered, number) if keep else None
    return {name: once[id(tensor)] for name, tensor in tensors.items()} if keep else {}


def _as_saved(tensor: torch.Tensor, number: torch.dtype) -> torch.Tensor:
    return tensor.to("cpu", number if tensor.is_floating_point() else None)


def _save_adapter(model: Any, base: BaseModel, directory: Path) -> None:
    # With a given state_dict PEFT does not look at the base, which may be sharded.
    weights = {name: value for name, value in model.state_dict().items() if "lora_" in name}
    model.save_pretrained(directory, state_dict=weights)
    (directory / "README.md").unlink(missing_ok=True)
    config = directory / "adapter_config.json"
    # PEFT writes sets in hash order. Sort them, so that equal runs give equal bytes.
    content = json.loads(config.read_text())
    for name in ("target_modules", "target_parameters"):
        if isinstance(content.get(name), list):
            content[name].sort()
    # Write the base's name instead of its path on this machine.
    content["base_model_name_or_path"] = base.name
    config.write_text(json.dumps(content, indent=2, sort_keys=True))

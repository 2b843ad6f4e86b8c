"""An adapter merged into its base, exported only if both give the same answers.

An adapter trained on a 4-bit base is merged into that base as it was expanded in training, not into the
original: rounding the sum to 4 bits again would lose what was learnt, and the original is another model.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tunewheel_basemodel.loading import load_adapter, load_base
from tunewheel_basemodel.locate import BaseModel
from tunewheel_basemodel.precision import Precision
from tunewheel_contracts.errors import TunewheelError

TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "bfloat16": 0.05}
"""Largest mean difference of log-probabilities, over the vocabulary's likely tokens. bf16 keeps eight bits:
the weights' sum is rounded once where the adapter's product was rounded apart."""
LIKELY = 20
"""Tokens per position that are compared: the likeliest by the adapter."""


class NotEqual(TunewheelError):
    """What was exported gives other answers than the adapter; nothing was left behind."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How near an export is to its adapter over the positions of some prompts."""

    prompts: int
    positions: int
    mean_difference: float
    worst_difference: float
    same_choice: float
    """Share of positions where both think the same token likeliest."""
    tolerance: float


def export_merged(
    base: BaseModel,
    adapter: Path,
    output_dir: Path,
    *,
    prompts: Sequence[Sequence[int]],
    quantization: Any = None,
    precision: Precision = "float32",
) -> Parity:
    """Merge ``adapter`` (PEFT safetensors) into ``base`` and write the whole model to ``output_dir``.

    ``prompts`` are token ids. The files are read back and compared before they get their name.

    Raises NotEqual when they differ by more than ``TOLERANCE``; InvalidAdapter, BaseModelNotFound.
    """
    model, tokenizer = load_base(base, dtype=precision, quantization=quantization)
    adapted = load_adapter(model, adapter, "default").eval()
    expected = [log_probabilities(adapted, ids) for ids in prompts]
    merged = _merged(base, adapter, quantization, precision)
    scratch = output_dir.parent / f".{output_dir.name}"
    shutil.rmtree(scratch, ignore_errors=True)
    merged.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    del adapted, model, merged
    read_back, _ = load_base(BaseModel(base.name, scratch, base.revision), dtype=precision)
    parity = compare(expected, [log_probabilities(read_back, ids) for ids in prompts], TOLERANCE[precision])
    if not parity.mean_difference <= parity.tolerance:
        shutil.rmtree(scratch)
        raise NotEqual(
            f"the merged model's log-probabilities differ from the adapter's by {parity.mean_difference:.4f} "
            f"on average, more than {parity.tolerance}; export in float32, or serve the adapter itself"
        )
    shutil.rmtree(output_dir, ignore_errors=True)
    scratch.rename(output_dir)
    return parity


def _merged(base: BaseModel, adapter: Path, quantization: Any, precision: Precision) -> Any:
    model: Any
    model, _ = load_base(base, dtype=precision, quantization=quantization)
    if quantization is not None:
        model = model.dequantize(dtype=getattr(torch, precision))
        for name in ("quantization_config", "_pre_quantization_dtype"):
            if hasattr(model.config, name):
                delattr(model.config, name)
    return load_adapter(model, adapter, "default").merge_and_unload(safe_merge=True)


def log_probabilities(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """[positions, vocabulary] in fp32 on the CPU."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False).logits[0]
    return F.log_softmax(logits.float(), dim=-1).cpu()


def compare(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor], tolerance: float) -> Parity:
    """Hold ``found`` against ``expected``, prompt by prompt."""
    differences: list[torch.Tensor] = []
    same: list[torch.Tensor] = []
    for wanted, given in zip(expected, found, strict=True):
        likely = wanted.topk(min(LIKELY, wanted.shape[-1]), dim=-1)
        differences.append((given.gather(-1, likely.indices) - likely.values).abs().flatten())
        same.append(wanted.argmax(-1) == given.argmax(-1))
    flat, agreed = torch.cat(differences), torch.cat(same)
    return Parity(
        prompts=len(expected),
        positions=len(agreed),
        mean_difference=float(flat.mean()),
        worst_difference=float(flat.max()),
        same_choice=float(agreed.float().mean()),
        tolerance=tolerance,
    )

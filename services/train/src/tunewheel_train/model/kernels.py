"""Chooses the kernels of a run by what the machine can do, and applies them to a model.

    layers      liger: RMSNorm, rotary positions and SwiGLU in one pass each (arXiv:2410.10989), in Triton
    attention   of padded batches; packed rows have their own (``attention.py``)
    compiled    never: it costs more than it gives, see docs/training.md

Liger's fused linear cross-entropy is not used: it computes logits for every position, while our loss computes
them only for the learnt ones.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any, Literal

from tunewheel_basemodel.precision import Precision
from tunewheel_contracts.formats.recipe import TrainSpec

AMPERE = (8, 0)
"""The first compute capability with bf16. Both libraries require it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that decide. ``capability`` is the GPU's compute capability; None: there is no GPU."""

    capability: tuple[int, int] | None
    liger: bool
    """Whether liger is installed and supports the model."""
    flash_attention: bool
    """Installed."""
    half_precision: bool
    """Whether the model's weights are in bf16. Flash attention needs that."""


@dataclass(frozen=True, slots=True)
class Kernels:
    layers: Literal["torch", "liger"] = "torch"
    attention: Literal["sdpa", "flash_attention_2"] = "sdpa"
    compiled: Literal["no"] = "no"

    def told(self) -> dict[str, str]:
        """The form in events and manifests."""
        return {name: str(value) for name, value in asdict(self).items()}


def choose(facts: Facts) -> Kernels:
    """Return the fastest kernels that ``facts`` allow."""
    if facts.capability is None or facts.capability < AMPERE:
        return Kernels()
    return Kernels(
        layers="liger" if facts.liger else "torch",
        attention="flash_attention_2" if facts.flash_attention and facts.half_precision else "sdpa",
    )


def facts_of(model_type: str | None, recipe: TrainSpec, precision: Precision) -> Facts:
    """Return the facts of this machine's first visible GPU and of a model of ``model_type``."""
    import torch

    cuda = torch.cuda.is_available()
    return Facts(
        capability=torch.cuda.get_device_capability() if cuda else None,
        liger=cuda and _liger_knows(model_type),
        flash_attention=find_spec("flash_attn") is not None,
        half_precision=precision == "bfloat16" and recipe.method.traits.adapter,
    )


def _liger_knows(model_type: str | None) -> bool:
    if find_spec("liger_kernel") is None:
        return False
    from liger_kernel.transformers.monkey_patch import (
        MODEL_TYPE_TO_APPLY_LIGER_FN,
    )

    return model_type in MODEL_TYPE_TO_APPLY_LIGER_FN


def use(kernels: Kernels, model: Any) -> None:
    """Make ``model``, with or without an adapter, use ``kernels``."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if kernels.layers == "liger":
        from liger_kernel.transformers.monkey_patch import (
            _apply_liger_kernel_to_instance,
        )

        _apply_liger_kernel_to_instance(model=base, cross_entropy=False, fused_linear_cross_entropy=False)
    if kernels.attention != "sdpa":
        # Without it the backward pass sums in varying order.
        os.environ["FLASH_ATTENTION_DETERMINISTIC"] = "1"
        base.set_attn_implementation(kernels.attention)

"""Collects the facts for ``kernels.choose`` from the machine, and applies the chosen kernels to a model."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from tunewheel_basemodel.precision import Precision
from tunewheel_contracts.formats.recipe import TrainSpec

from tunewheel_train.model.kernels import Facts, Kernels


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
    from liger_kernel.transformers.monkey_patch import (  # pyright: ignore[reportMissingImports]
        MODEL_TYPE_TO_APPLY_LIGER_FN,
    )

    return model_type in MODEL_TYPE_TO_APPLY_LIGER_FN


def use(kernels: Kernels, model: Any) -> None:
    """Make ``model``, with or without an adapter, use ``kernels``."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if kernels.layers == "liger":
        from liger_kernel.transformers.monkey_patch import (  # pyright: ignore[reportMissingImports]
            _apply_liger_kernel_to_instance,
        )

        _apply_liger_kernel_to_instance(model=base, cross_entropy=False, fused_linear_cross_entropy=False)
    if kernels.attention != "sdpa":
        # Without it the backward pass sums in varying order.
        os.environ["FLASH_ATTENTION_DETERMINISTIC"] = "1"
        base.set_attn_implementation(kernels.attention)

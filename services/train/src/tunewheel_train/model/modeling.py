"""Loads the model to train with its tokenizer, and switches it to the fast paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tunewheel_basemodel.errors import ModelFilesError
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel
from tunewheel_basemodel.precision import Precision
from tunewheel_contracts.formats.recipe import TrainSpec

from tunewheel_train.data.datasets import Encoded
from tunewheel_train.errors import RunFailed
from tunewheel_train.model.adapters import continue_adapter, with_adapter
from tunewheel_train.model.attention import leave_packed_attention, use_packed_attention
from tunewheel_train.model.process_group import device_of_process
from tunewheel_train.model.projection import fuse_lora, unfuse_lora


def make_deterministic(seed: int) -> None:
    """Seed every random source, and avoid kernels whose results vary from call to call. On a processor there
    are none left. On CUDA the backward pass of attention still varies within rounding."""
    from transformers import set_seed

    set_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # By default each new tensor is filled with NaN in this mode: 9 % of a step's time, and no result changes.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[missing-attribute]


def load(
    base: BaseModel,
    recipe: TrainSpec,
    *,
    precision: Precision,
    start_from: Path | None = None,
    shards: int = 1,
) -> tuple[Any, Any]:
    """Return the model with its adapter (that of ``start_from``, or a new one), and the tokenizer.

    Matrix products are computed in ``precision``. The method ``full`` keeps fp32 weights, because bf16 would
    round small updates away, and computes under autocast. ``shards``: see ``load_base``. Raises RunFailed.
    """
    traits = recipe.method.traits
    weights: Precision = precision if traits.adapter else "float32"
    try:
        model, tokenizer = load_base(
            base, dtype=weights, quantization=traits.quantization, device=device_of_process(), shards=shards
        )
    except ModelFilesError as error:
        raise RunFailed(field="base_model", reason=error.reason) from error
    give_padding(tokenizer)
    model.config.use_cache = False
    if not traits.adapter:
        return model, tokenizer
    if start_from is not None:
        return continue_adapter(model, recipe, start_from), tokenizer
    return with_adapter(model, recipe), tokenizer


def load_tokenizer(base: BaseModel) -> Any:
    """Return the tokenizer of ``base``. Raises RunFailed."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(base.path), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise RunFailed(
            field="base_model", reason=f"has no tokenizer that loads ({error}); restore its files"
        ) from error
    give_padding(tokenizer)
    return tokenizer


def give_padding(tokenizer: Any) -> None:
    """Set a padding token if there is none. Any token will do, because padding is masked."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)


def use_packed_rows(model: Any, examples: Sequence[Encoded]) -> None:
    """Switch the model to packed rows of ``examples``. Raises NotEquivalent if it gives other results on
    them."""
    use_packed_attention(model.get_base_model() if hasattr(model, "get_base_model") else model, examples)


def leave_packed_rows(model: Any) -> None:
    """Undo ``use_packed_rows`` and the fused layers, so that the model takes padded batches."""
    unfuse_lora(model)
    leave_packed_attention(model.get_base_model() if hasattr(model, "get_base_model") else model)


def prepare_parameters(model: Any) -> None:
    """Convert the trained parameters to fp32 (TRL rounds those of QLoRA to bf16), and fuse the LoRA
    layers."""
    from tunewheel_basemodel.loading import keep_linear4bit_unpacked

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if getattr(model, "is_loaded_in_4bit", False):
        keep_linear4bit_unpacked(model)
    fuse_lora(model)

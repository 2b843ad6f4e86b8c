"""The model to train: loaded, given its adapter, switched to the fast paths, and saved again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tunewheel_basemodel.errors import ModelFilesError
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel
from tunewheel_basemodel.precision import Precision, compute_dtype

from tunewheel_train.attention import use_packed_attention
from tunewheel_train.datasets import Encoded
from tunewheel_train.errors import RunFailed
from tunewheel_train.projection import fuse_lora, unfuse_lora

Method = Literal["lora", "qlora", "full"]
# From this many parameters on, a GPU recomputes activations instead of keeping them.
_CHECKPOINT_ACTIVATIONS_FROM = 1_000_000_000


def make_deterministic(seed: int) -> None:
    """Seed every random source and forbid kernels whose results vary from call to call."""
    from transformers import set_seed

    set_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)


def load(
    base: BaseModel,
    *,
    method: Method,
    dtype: Precision | Literal["auto"],
    rank: int,
    alpha: int,
    dropout: float,
    target_modules: str | Sequence[str],
    seed: int,
) -> tuple[Any, Any, Precision]:
    """Model with its adapter, tokenizer, and the precision that products are computed in.

    ``full`` keeps fp32 weights to update (bf16 would round small updates away) and computes under
    autocast. Raises RunFailed.
    """
    number = compute_dtype() if dtype == "auto" else dtype
    quantization: Literal["nf4"] | None = "nf4" if method == "qlora" else None
    weights: Precision = "float32" if method == "full" else number
    try:
        model, tokenizer = load_base(base, dtype=weights, quantization=quantization)
    except ModelFilesError as error:
        raise RunFailed(field="base_model", reason=error.reason) from error
    _give_padding(model, tokenizer)
    if method == "full":
        return model, tokenizer, number
    return _with_adapter(model, rank, alpha, dropout, target_modules, seed), tokenizer, number


def _give_padding(model: Any, tokenizer: Any) -> None:
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.use_cache = False


def _with_adapter(
    model: Any, rank: int, alpha: int, dropout: float, target_modules: str | Sequence[str], seed: int
) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    set_seed(seed)
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise RunFailed(
            field="train.target_modules",
            reason=f"does not fit this base model ({str(error).splitlines()[0]}); use 'all-linear'",
        ) from error


def use_packed_rows(model: Any, examples: Sequence[Encoded]) -> bool:
    """Let the model take packed rows, where it provably can."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return use_packed_attention(base, examples)


def prepare_parameters(model: Any) -> None:
    """Hold what is trained in fp32 (TRL rounds QLoRA's to bf16) and fuse the LoRA layers."""
    from tunewheel_basemodel.loading import keep_linear4bit_unpacked

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if getattr(model, "is_loaded_in_4bit", False):
        keep_linear4bit_unpacked(model)
    fuse_lora(model)


def trl_arguments(
    *,
    output_dir: Path,
    total_steps: int,
    learning_rate: float,
    method: Method,
    warmup_fraction: float,
    weight_decay: float,
    max_grad_norm: float,
    scheduler: Literal["linear", "cosine", "constant"],
    checkpoint_steps: int,
    seed: int,
    compute_dtype: Precision,
) -> Any:
    """TRL's configuration: one epoch over the plan, whose items are optimizer steps."""
    from trl.trainer.sft_config import SFTConfig

    return SFTConfig(
        output_dir=str(output_dir),
        num_train_epochs=1,
        max_steps=total_steps,
        per_device_train_batch_size=1,
        learning_rate=learning_rate,
        warmup_steps=round(warmup_fraction * total_steps),
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        lr_scheduler_type="constant_with_warmup" if scheduler == "constant" else scheduler,
        optim="adamw_torch",
        bf16=method == "full" and compute_dtype == "bfloat16",
        gradient_checkpointing=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=checkpoint_steps,
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        report_to=[],
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        shuffle_dataset=False,
    )


def as_dataset(examples: Sequence[Encoded]) -> Any:
    """The token ids as a ``datasets.Dataset``, which TRL's constructor asks for."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [list(example.input_ids) for example in examples]})


def save(model: Any, tokenizer: Any, base: BaseModel, number: Precision, directory: Path) -> None:
    """Write safetensors to ``directory``: the adapter alone, or the whole model with its tokenizer."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    unfuse_lora(model)
    if hasattr(model, "peft_config"):
        _save_adapter(model, base, directory)
        return
    model.set_attn_implementation("sdpa")
    model.config.use_cache = True
    model.to(torch.bfloat16 if number == "bfloat16" else torch.float32)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _save_adapter(model: Any, base: BaseModel, directory: Path) -> None:
    model.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)
    config = directory / "adapter_config.json"
    # PEFT writes sets in hash order: sorted, equal runs give equal bytes.
    content = json.loads(config.read_text())
    if isinstance(content.get("target_modules"), list):
        content["target_modules"].sort()
    # The name, not the place of its files on this machine.
    content["base_model_name_or_path"] = base.name
    config.write_text(json.dumps(content, indent=2, sort_keys=True))

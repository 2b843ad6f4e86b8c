"""Loads the model to train, adds its adapter, and switches it to the fast paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.pytorch_utils import Conv1D
from tunewheel_basemodel.errors import ModelFilesError
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel
from tunewheel_basemodel.precision import Precision
from tunewheel_contracts.formats.recipe import PreferenceMethod, PreferenceSpec, TrainMethod, TrainSpec

from tunewheel_train.data.datasets import Encoded
from tunewheel_train.data.preferences import EncodedPair, class_weights
from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Job
from tunewheel_train.model.attention import leave_packed_attention, use_packed_attention
from tunewheel_train.model.projection import fuse_lora, unfuse_lora


def meet(seconds: float) -> None:
    """Join the process group, and return when all processes that train together have joined; alone, do
    nothing.

    No process waits longer than ``seconds`` for another. PyTorch's defaults (10 minutes for NCCL, 30 for
    gloo) are too short: the first process may take longer to hash a large checkpoint.
    """
    if (backend := group_backend()) is not None:
        from accelerate import PartialState

        PartialState(cpu=backend == "gloo", backend=backend, timeout=timedelta(seconds=seconds))
        wait_for_all()


def wait_for_all() -> None:
    """Return when all processes that train together have called this."""
    if group_backend() is not None:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def group_backend() -> str | None:
    """Return the backend of the process group; None: this process trains alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    return "nccl" if torch.cuda.is_available() else "gloo"


def make_deterministic(seed: int) -> None:
    """Seed every random source and forbid kernels whose results vary from call to call."""
    from transformers import set_seed

    set_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)


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
    full = recipe.method is TrainMethod.FULL
    quantization: Literal["nf4"] | None = "nf4" if recipe.method is TrainMethod.QLORA else None
    weights: Precision = "float32" if full else precision
    try:
        model, tokenizer = load_base(
            base, dtype=weights, quantization=quantization, device=device_of_process(), shards=shards
        )
    except ModelFilesError as error:
        raise RunFailed(field="base_model", reason=error.reason) from error
    give_padding(tokenizer)
    model.config.use_cache = False
    if full:
        return model, tokenizer
    _demand_reachable(model, recipe.target_modules)
    if start_from is not None:
        return continue_adapter(model, recipe, start_from), tokenizer
    return _with_adapter(model, recipe), tokenizer


def device_of_process() -> str:
    """Return ``auto``, or the GPU of this process if several processes train together."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank is not None and torch.cuda.is_available() else "auto"


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


def _with_adapter(model: Any, recipe: TrainSpec) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    targets = recipe.target_modules
    _demand_modules(model, targets)
    config = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=recipe.rslora, use_dora=recipe.dora, task_type="CAUSAL_LM",
    )  # fmt: skip
    set_seed(recipe.seed)
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise RunFailed(
            field="train.target_modules",
            reason=f"does not fit this base model ({str(error).splitlines()[0]}); use 'all-linear'",
        ) from error


def _demand_reachable(model: Any, targets: str | Sequence[str]) -> None:
    """Raise RunFailed if ``all-linear`` would not reach all weights: experts in one tensor are no linear
    layers, and would get no adapter."""
    if targets != "all-linear":
        return
    experts = sum(_holds_experts(module) for module in model.modules())
    if experts:
        reached = _last_parts(_adapted(model, "all-linear"))
        raise RunFailed(
            field="train.target_modules",
            reason=f"is 'all-linear', but no adapter can be put on the experts of this mixture, which lie in "
            f"{experts} layers; choose a dense base_model, or name the layers to train instead: some of "
            f"{reached}",
        )


def _holds_experts(module: torch.nn.Module) -> bool:
    """Return whether ``module`` keeps the matrices of all experts in one tensor [experts, …, …]."""
    stacked = any(p.ndim == 3 and min(p.shape) > 1 for p in module.parameters(recurse=False))
    return stacked and not isinstance(module, torch.nn.modules.conv._ConvNd)


def _demand_modules(model: Any, targets: str | Sequence[str]) -> None:
    """Raise RunFailed if a target matches no layer. PEFT would accept one match and silently ignore the
    others."""
    if isinstance(targets, str):
        return
    head = next((name for name, one in model.named_modules() if one is model.get_output_embeddings()), None)
    # an adapter on the output head would have no effect: TRL uses the head's own weights
    wrong = [target for target in targets if not (found := _adapted(model, [target])) or head in found]
    if wrong:
        fit = _last_parts(_adapted(model, "all-linear"))
        raise RunFailed(
            field="train.target_modules",
            reason=f"names {', '.join(wrong)}, but the layers here are {fit}; mend it, or use 'all-linear'",
        )


def _adapted(model: Any, targets: str | Sequence[str]) -> set[str]:
    """Return the names of the layers that ``targets`` match."""
    if targets == "all-linear":
        head = model.get_output_embeddings()
        layers = ((name, layer) for name, layer in model.named_modules() if layer is not head)
        return {name for name, layer in layers if isinstance(layer, torch.nn.Linear | Conv1D)}
    names = (name for name, _ in model.named_modules() if name)
    return {name for name in names if any(f".{name}".endswith(f".{target}") for target in targets)}


def _last_parts(names: Iterable[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in names}))


def continue_adapter(model: Any, recipe: TrainSpec, directory: Path) -> Any:
    """Return ``model`` with the adapter in ``directory``, to be trained further.

    Raises RunFailed if the adapter was made with other parameters, or does not fit the base.
    """
    from peft import LoraConfig, PeftModel
    from tunewheel_basemodel.errors import InvalidAdapter
    from tunewheel_basemodel.loading import check_adapter

    try:
        written = check_adapter(directory)
        _demand_same_shape(written, recipe)
        _demand_same_modules(model, written, recipe)
        config: Any = LoraConfig.from_pretrained(str(directory))
        config.lora_dropout = recipe.dropout
        return PeftModel.from_pretrained(model, str(directory), is_trainable=True, config=config)
    except InvalidAdapter as error:
        raise RunFailed(field="train.continue_from", reason=str(error)) from error
    except (ValueError, KeyError, RuntimeError) as error:
        raise RunFailed(
            field="train.continue_from",
            reason=f"does not fit the base model ({str(error).strip().splitlines()[0]}); "
            "name an adapter of it",
        ) from error


def _demand_same_shape(written: dict[str, Any], recipe: TrainSpec) -> None:
    """Raise RunFailed if the recipe has another shape or scale than the adapter: these cannot change."""
    keys = {"rank": "r", "alpha": "lora_alpha", "rslora": "use_rslora", "dora": "use_dora"}
    for name, key in keys.items():
        wanted, found = getattr(recipe, name), written.get(key, False)
        if wanted != found:
            raise RunFailed(
                field=f"train.{name}",
                reason=f"is {wanted}, but the adapter to continue from has {found}; set it to {found}",
            )


def _demand_same_modules(model: Any, written: dict[str, Any], recipe: TrainSpec) -> None:
    found = _adapted(model, written.get("target_modules") or ())
    if found != _adapted(model, recipe.target_modules):
        raise RunFailed(
            field="train.target_modules",
            reason=f"is not what the adapter to continue from has, [{_last_parts(found)}]; set it to that",
        )


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


def optimizer_name(method: TrainMethod, *, cuda: bool) -> str:
    """Return AdamW. For a 4-bit base on a GPU: AdamW with 8-bit moments that are paged to main memory when
    GPU memory is short (arXiv:2305.14314 §3)."""
    return "paged_adamw_8bit" if cuda and method is TrainMethod.QLORA else "adamw_torch"


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
        "bf16": recipe.method is TrainMethod.FULL and precision == "bfloat16",
        "gradient_checkpointing": bool(job.gradient_checkpointing),
        "gradient_checkpointing_kwargs": recomputing,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": recipe.checkpoint_steps,
        "save_only_model": True,  # Trainer's own checkpoints are not written
        "seed": recipe.seed,
        "use_cpu": not cuda,
        "ddp_backend": group_backend(),
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


def preference_config(
    common: dict[str, Any], preference: PreferenceSpec, pairs: Sequence[EncodedPair]
) -> Any:
    """TRL's configuration of training on ``pairs``."""
    if preference.method is PreferenceMethod.ORPO:
        return examples_config(common)
    common = common | {"beta": preference.beta, "remove_unused_columns": False}
    if preference.method is PreferenceMethod.KTO:
        from trl.trainer.kto_config import KTOConfig

        desirable, undesirable = class_weights(pairs, preference)
        common |= {"desirable_weight": desirable, "undesirable_weight": undesirable}
        # An item is a whole step, but TRL needs more than one item to estimate the KL divergence.
        in_order = {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 2}
        return KTOConfig(**common | in_order)
    from trl.trainer.dpo_config import DPOConfig

    return DPOConfig(**common)


def as_dataset(rows: Sequence[dict[str, Any]]) -> Any:
    """Rows as a ``datasets.Dataset``, which TRL's constructors ask for."""
    from datasets import Dataset

    return Dataset.from_list(list(rows))

"""Holds the planner's activations against a trace of the training code. Full-size blocks run on the meta
device, as on a GPU, and what autograd keeps is added up. No number is computed, so it takes no memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_planner.memory import kept_per_token, scores_per_token
from tunewheel_planner.shapes import shape_of
from tunewheel_train.data.datasets import Encoded
from tunewheel_train.data.packing import pack
from tunewheel_train.model import attention
from tunewheel_train.model.adapters import with_adapter
from tunewheel_train.model.projection import fuse_lora

LLAMA = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
         "vocab_size": 1000, "head_dim": 128, "max_position_embeddings": 8192, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {"hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 4,
              "intermediate_size": 18944},
    "qwen3": {"intermediate_size": 12288},
    "gemma3_text": {"hidden_size": 5376, "num_key_value_heads": 16, "intermediate_size": 21504},
    "phi3": {"hidden_size": 3072, "num_key_value_heads": 32, "head_dim": 96, "intermediate_size": 8192},
    "olmo2": {"num_key_value_heads": 32, "intermediate_size": 11008},
    "granite": {"num_key_value_heads": 8, "intermediate_size": 12800},
    "smollm3": {"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 4,
                "intermediate_size": 11008},
    "gemma2": {"hidden_size": 3584, "num_attention_heads": 16, "head_dim": 256},
}  # fmt: skip
REFUSED = {("gemma2", "packed"), ("gemma2", "prefix")}
"""Packed rows do not support capped scores."""
NIGHTLY = pytest.mark.nightly("matrices")
EXAMPLES, LENGTH = 4, 1024


class _Flash(torch.autograd.Function):
    """Keeps what PyTorch's fused attention kernels keep: inputs, output, and an fp32 sum per row."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        raise AssertionError("traced forward only")


class Kept:
    """The bytes of storages that autograd keeps, without the parameters."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._own = {p.untyped_storage()._cdata for p in model.parameters()}
        self._kept: dict[int, torch.Tensor] = {}

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in self._own:
            self._kept[key] = tensor
        return tensor

    @property
    def bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self._kept.values())


@contextmanager
def traced(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    kept = Kept(model)

    def recomputed(function: Any, *inputs: Any, **_: Any) -> Any:
        for tensor in inputs:
            if isinstance(tensor, torch.Tensor):
                kept.keep(tensor)
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda _: None):
            return function(*inputs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, **_: _Flash.apply(q, k, v))
    monkeypatch.setattr(attention, "checkpoint", recomputed)
    with torch.autograd.graph.saved_tensors_hooks(kept.keep, lambda tensor: tensor):
        yield kept


def config_of(family: str, layers: int) -> Any:
    told = LLAMA | FAMILIES[family] | {"num_hidden_layers": layers}
    return AutoConfig.for_model(family, **told)


def examples(prefix: int) -> list[Encoded]:
    own = range(LENGTH - prefix)
    return [
        Encoded(str(n), (*range(prefix), *(3 + n + at for at in own)), (0,) * (LENGTH - 8) + (1,) * 8)
        for n in range(EXAMPLES)
    ]


def quantise(model: torch.nn.Module) -> int:
    """Replace the linear layers of the blocks by 4-bit ones without data; return how many there were."""
    import bitsandbytes as bnb
    from bitsandbytes.functional import QuantState

    linear = [
        (n, it) for n, it in model.named_modules() if isinstance(it, torch.nn.Linear) and ".layers." in n
    ]
    for name, layer in linear:
        packed = torch.empty(layer.weight.numel() // 2, 1, dtype=torch.uint8, device="meta")
        scales = torch.empty(layer.weight.numel() // 64, device="meta")
        four = bnb.nn.Linear4bit(
            layer.in_features, layer.out_features, layer.bias is not None,
            compute_dtype=torch.bfloat16, quant_type="nf4", device="meta",
        )  # fmt: skip
        state = QuantState(
            scales, layer.weight.shape, torch.empty(16, device="meta"), 64, "nf4", torch.bfloat16
        )
        four.weight = bnb.nn.Params4bit(packed, requires_grad=False, quant_state=state, bnb_quantized=True)
        four.bias = layer.bias
        model.set_submodule(name, four)
    return len(linear)


def kept_by(
    family: str, layers: int, method: TrainMethod, form: str, monkeypatch: pytest.MonkeyPatch
) -> float:
    """Return the bytes per token that ``layers`` blocks keep."""
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config_of(family, layers), dtype=torch.bfloat16)
    if method.traits.quantization:
        assert quantise(model) >= 4 * layers
    if method.traits.adapter:
        model = with_adapter(model, TrainSpec(method=method))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        fuse_lora(model)
    model.train()
    batch = pack(examples(LENGTH // 2 if form == "prefix" else 0)).to("meta")
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    ids, positions = batch.input_ids, batch.position_ids
    layout: dict[str, Any] = {"packed": batch.layout}
    if form == "padded":
        ids, positions = torch.zeros(EXAMPLES, LENGTH, dtype=torch.long, device="meta"), None
        # transformers takes a mask of four dimensions as it is; it would ask a smaller one for its numbers
        mask = torch.ones(EXAMPLES, 1, LENGTH, LENGTH, dtype=torch.bool, device="meta")
        layout = {"attention_mask": mask}
    else:
        from transformers import AttentionInterface

        AttentionInterface.register(attention.NAME, attention.packed_attention)
        base.set_attn_implementation(attention.NAME)
    with traced(model, monkeypatch) as kept:
        model(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=1, **layout)
    return kept.bytes / ids.numel()


def cases() -> list[Any]:
    """One family of each kind by day, all by night."""
    by_day = {"llama", "qwen2", "qwen3", "gemma3_text"}
    return [
        pytest.param(family, form, marks=() if family in by_day else NIGHTLY)
        for family in FAMILIES
        for form in ("padded", "packed", "prefix")
        if (family, form) not in REFUSED
    ]


@pytest.mark.parametrize(("family", "form"), cases())
def test_what_a_token_keeps_in_a_block_is_planned_within_a_tenth(family, form, monkeypatch) -> None:
    quantised = [TrainMethod.QLORA] if form == "packed" or family == "gemma2" else []
    for method in (TrainMethod.LORA, *quantised, TrainMethod.FULL):
        two, one = (kept_by(family, layers, method, form, monkeypatch) for layers in (2, 1))
        shape = shape_of(config_of(family, 2).to_dict())
        planned = kept_per_token(shape, method, 16, "all-linear", "bfloat16")
        planned += scores_per_token(shape, LENGTH, "bfloat16", "cuda")
        print(family, form, method.value, round(two - one), planned, f"{(two - one) / planned:.3f}")
        assert two - one == pytest.approx(planned, rel=0.1)

"""Checks without a GPU what one would run: tensors on ``cuda:0`` that hold no data go through the losses
of the trainers, and Liger's RMSNorm is compiled for GPUs that are not here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_train.data.datasets import Encoded
from tunewheel_train.data.packing import pack, pad
from tunewheel_train.model import attention
from tunewheel_train.model.adapters import with_adapter
from tunewheel_train.model.projection import fuse_lora
from tunewheel_train.trainers.loss import packed_losses
from tunewheel_train.trainers.orpo_trainer import odds_ratio_loss

SHAPE = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 2,
         "intermediate_size": 14336, "vocab_size": 128256, "head_dim": 128, "pad_token_id": 0}  # fmt: skip
GPU = torch.device("cuda:0")
CAPABILITIES = (80, 90)
NIGHTLY = pytest.mark.nightly("matrices")


def examples(prefix: int) -> list[Encoded]:
    """Four examples of 61 to 64 tokens that begin alike; eight tokens of each are learnt."""
    return [
        Encoded(
            str(n),
            (*range(prefix), *range(prefix + n, prefix + n + 64 - n - prefix)),
            (0,) * (56 - n) + (1,) * 8,
        )
        for n in range(4)
    ]


@pytest.fixture(params=["llama", *(pytest.param(one, marks=NIGHTLY) for one in ("qwen2", "gemma3_text"))])
def on_gpu(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A model of full width with an adapter, on a GPU that is not there."""
    with torch.device("meta"):
        config = AutoConfig.for_model(request.param, **SHAPE)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = with_adapter(model, TrainSpec())
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in model.modules():
            for name, it in module._parameters.items():
                if it is not None:
                    dtype = torch.float32 if it.requires_grad else it.dtype
                    data = torch.empty(it.shape, dtype=dtype, device=GPU)
                    module._parameters[name] = torch.nn.Parameter(data, requires_grad=it.requires_grad)
            for name, it in module._buffers.items():
                module._buffers[name] = None if it is None else torch.empty_like(it, device=GPU)
        assert fuse_lora(model) == 14
        yield model.train()


def packs(model: Any) -> None:
    AttentionInterface.register(attention.NAME, attention.packed_attention)
    model.get_base_model().set_attn_implementation(attention.NAME)


@pytest.mark.parametrize("prefix", [0, 24], ids=["packed", "prefix"])
def test_the_losses_of_packed_rows_are_computed_on_the_gpu(on_gpu, prefix: int) -> None:
    packs(on_gpu)
    losses = packed_losses(on_gpu, pack(examples(prefix)).to(GPU))
    assert (losses.shape, losses.device, losses.dtype) == ((32,), GPU, torch.float32)
    assert losses.requires_grad
    answers = torch.stack([-part.mean() for part in losses.split([8] * 4)])
    pairs, _ = odds_ratio_loss(answers[0::2], answers[1::2], 0.1)
    assert (pairs.shape, pairs.device) == ((2,), GPU)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_the_loss_of_a_padded_batch_is_computed_on_the_gpu(on_gpu, kernel: str) -> None:
    on_gpu.get_base_model().set_attn_implementation(kernel)
    batch = {name: it.to(GPU) for name, it in pad(examples(0), 0).items()}
    loss = on_gpu(**batch, use_cache=False).loss
    assert (loss.device, loss.requires_grad) == (GPU, True)


@pytest.mark.parametrize("left", ["to_block", "from_block"])
def test_a_layout_that_is_left_on_the_processor_is_found(on_gpu, left: str) -> None:
    packs(on_gpu)
    row = pack(examples(24))
    moved = row.to(GPU)
    wrong = replace(moved, layout=replace(moved.layout, **{left: getattr(row.layout, left)}))
    with pytest.raises(RuntimeError, match="same device"):
        packed_losses(on_gpu, wrong)


NORM = {"casting_mode": 0, "elementwise_affine": True, "BLOCK_SIZE": 4096}
WIDTHS = {"n_cols": 14336, "BLOCK_SIZE": 16384}
HEADS = {
    "bs": 1, "cos_bs": 1, "n_qh": 32, "n_kh": 8, "hd": 128, "pad_n_qh": 32, "pad_n_kh": 8, "pad_hd": 128,
    "pad_rd": 128, "rd": 128, "BLOCK_SIZE": 128,
}  # fmt: skip
KERNELS: dict[str, tuple[str, dict[str, Any]]] = {
    "norm": ("rms_norm._rms_norm_forward_kernel", NORM),
    "norm, backward": ("rms_norm._rms_norm_backward_kernel", NORM | {"X_dtype": "bf16", "COMPUTE_DW": False}),
    "swiglu": ("swiglu._swiglu_forward_kernel", WIDTHS),
    "swiglu, backward": ("swiglu._swiglu_backward_kernel", WIDTHS),
    "geglu": ("geglu._geglu_tanh_forward_kernel", WIDTHS),
    "geglu, backward": ("geglu._geglu_tanh_backward_kernel", WIDTHS),
    "rope": ("rope._triton_rope", HEADS | {"BACKWARD_PASS": False}),
    "rope, backward": ("rope._triton_rope", HEADS | {"BACKWARD_PASS": True}),
}
"""Liger's kernels for the layers of the models that it knows, each with what is known when it is compiled."""


def type_of(argument: str) -> str:
    if argument in ("eps", "offset", "gate_multiplier"):
        return "fp32"
    if argument in ("RSTD_ptr", "dW_ptr"):
        return "*fp32"
    whole = argument.endswith("stride") or argument in ("n_cols", "n_rows", "rows_per_program", "sl")
    return "i32" if whole else "*bf16"


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(
    "name", [one if one == "norm" else pytest.param(one, marks=NIGHTLY) for one in KERNELS]
)
def test_ligers_kernels_compile_for_a_gpu(name: str, capability: int, tmp_path, monkeypatch) -> None:
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    pytest.importorskip("liger_kernel", reason="tunewheel-train[cuda] is not installed")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.knobs import nvidia

    if nvidia.ptxas is None:
        pytest.skip("Triton came without ptxas")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    path, constants = KERNELS[name]
    module, _, function = path.rpartition(".")
    kernel = getattr(importlib.import_module(f"liger_kernel.ops.{module}"), function)
    if "X_dtype" in constants:
        constants = constants | {"X_dtype": triton.language.bfloat16}
    types = {one: "constexpr" if one in constants else type_of(one) for one in kernel.arg_names}
    source = ASTSource(kernel, types, constants)
    compiled = triton.compile(source, GPUTarget("cuda", capability, 32), {"num_warps": 8})
    assert f".target sm_{capability}" in compiled.asm["ptx"]
    assert compiled.asm["cubin"][:4] == b"\x7fELF"

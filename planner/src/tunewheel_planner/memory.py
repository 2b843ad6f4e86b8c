"""Estimates the bytes at the peak of a training step, part by part.

Weights, gradients and Adam's moments follow from parameter counts (ZeRO, arXiv:1910.02054 §3.1; QLoRA's 4-bit
blocks, arXiv:2305.14314 §3). Activations follow arXiv:2205.05198 §4, adapted to a gated MLP, grouped
attention and this project's training code: a LoRA layer keeps its input and ``A x`` (``projection.py`` of
train), frozen norms keep their input in fp32, and only positions with a loss reach the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.plan import MemoryParts

from tunewheel_planner.shapes import ALL_LINEAR, ModelShape

Precision = Literal["bfloat16", "float32"]
SIZE: dict[Precision, int] = {"bfloat16": 2, "float32": 4}
FP32 = 4
NF4_BLOCK = 64
"""How many weights share one scale. Scales are 8-bit, and 256 of them share an fp32 (double quantisation)."""
NF4_BYTES = 0.5 + 1 / NF4_BLOCK + FP32 / (NF4_BLOCK * 256)
EXPLICIT_UP_TO = 768
"""For rows of at most this many tokens, attention on the CPU keeps its scores (``attention.py`` of train)."""
FRAMEWORK: dict[str, int] = {"cpu": 1_300_000_000, "cuda": 1_200_000_000}
"""Memory of the framework, by kind of device. CPU: 0.9 GB resident after the imports, and memory that glibc
keeps between steps (``process.py`` of train), measured by the bench ``planner``. CUDA: the context, cuBLAS
workspaces and gaps."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The largest micro-batch, in tokens: ``tokens`` in all, ``longest`` in one example, ``learnt`` with a
    loss."""

    tokens: int
    longest: int
    learnt: int


def estimate_memory(
    shape: ModelShape,
    rows: Rows,
    *,
    method: TrainMethod,
    rank: int = 16,
    targets: str | Sequence[str] = ALL_LINEAR,
    precision: Precision = "bfloat16",
    kind: Literal["cpu", "cuda"] = "cuda",
    gradient_checkpointing: bool = False,
    eight_bit_optimizer: bool = False,
    reference: bool = False,
    shards: int = 1,
) -> MemoryParts:
    """Estimate the memory of one step of ``method`` in one process on a device of ``kind``.

    ``reference``: the reference adapter is in memory too. ``shards``: the base is divided into so many parts,
    and each process holds one part. Every process holds whole adapters.
    """
    adapter = shape.adapter_parameters(rank, targets) if method.traits.adapter else 0
    trained = adapter or math.ceil(shape.parameters / shards)
    moments = 2 if eight_bit_optimizer else 2 * FP32
    kept = kept_per_token(shape, method, rank, targets, precision)
    return MemoryParts(
        weights=_weights_in_process(shape, method, precision, shards),
        adapters=adapter * FP32 * (2 if reference else 1),
        gradients=trained * FP32,
        optimizer=trained * moments,
        activations=_activations(shape, rows, kept, precision, kind, gradient_checkpointing),
        logits=2 * rows.learnt * shape.vocabulary * SIZE[precision],
        framework=FRAMEWORK[kind],
    )


def weights_bytes(shape: ModelShape, method: TrainMethod, precision: Precision) -> int:
    """Return the bytes of the base model's weights during training.

    If all weights are trained, these are the fp32 master weights, and autocast's copies if the method
    computes in bf16.
    """
    if not method.traits.adapter:
        copies = SIZE[precision] if precision != "float32" else 0
        return shape.parameters * (FP32 + copies)
    if method.traits.quantization is None:
        return shape.parameters * SIZE[precision]
    rest = shape.parameters - shape.linear_parameters
    return round(shape.linear_parameters * NF4_BYTES) + rest * SIZE[precision]


def _weights_in_process(shape: ModelShape, method: TrainMethod, precision: Precision, shards: int) -> int:
    """Return the bytes of a process's part of the base, and of the weights gathered for the computation: the
    current block and the next one, or the embeddings."""
    whole = weights_bytes(shape, method, precision)
    if shards == 1:
        return whole
    gathered = max(2 * shape.block_parameters, shape.embedding_parameters) * SIZE[precision]
    return min(whole, math.ceil(whole / shards) + gathered)


def _activations(
    shape: ModelShape,
    rows: Rows,
    kept: int,
    precision: Precision,
    kind: Literal["cpu", "cuda"],
    gradient_checkpointing: bool,
) -> int:
    layer = rows.tokens * (kept + scores_per_token(shape, rows.longest, precision, kind))
    ends = rows.tokens * shape.hidden * (SIZE[precision] + FP32)
    if not gradient_checkpointing:
        return shape.layers * layer + ends
    # Every block keeps its input, and one block at a time is recomputed (arXiv:1604.06174).
    return shape.layers * rows.tokens * shape.hidden * SIZE[precision] + layer + ends


def kept_per_token(
    shape: ModelShape, method: TrainMethod, rank: int, targets: str | Sequence[str], precision: Precision
) -> int:
    """Return the bytes that one token keeps in one block on average, without the attention scores."""
    h, q, k = shape.hidden, shape.query, shape.key
    i = shape.intermediate * shape.active + shape.shared
    trained = targets if method.traits.adapter else ALL_LINEAR
    shares = [blocks / shape.layers for blocks in shape.adapted(trained)]
    # the inputs of qkv, o, gate/up and down; a frozen layer keeps none
    inputs = h * max(shares[:3]) + q * shares[3] + h * max(shares[4:6]) + i * shares[6]
    # attention's q, k and v, repeated for each head if no fused kernel attends; then gate, its SiLU, and up
    kept = inputs + q + (2 * q if shape.capped else 4 * k) + 3 * i
    normed = shape.norms * h + shape.head_norms * (q + k)
    if method.traits.adapter:
        return round((kept + sum(shares) * rank) * SIZE[precision]) + normed * FP32
    # a norm that is trained keeps its result too; Gemma's four norms scale it in fp32
    return round(kept * SIZE[precision]) + normed * (FP32 + (FP32 if shape.norms > 2 else SIZE[precision]))


def scores_per_token(
    shape: ModelShape, longest: int, precision: Precision, kind: Literal["cpu", "cuda"]
) -> int:
    """Return the bytes of attention's probabilities that one token keeps in one block, in rows of ``longest``
    tokens: in fp32 and in the lower precision if they are kept, otherwise one fp32 number per head. Capped
    scores are always kept, and before the softmax too."""
    if not shape.capped and (kind == "cuda" or longest > EXPLICIT_UP_TO):
        return shape.heads * FP32
    rounded = SIZE[precision] if precision != "float32" else 0
    capped = SIZE[precision] if shape.capped else 0
    return longest * shape.heads * (FP32 + rounded + capped)

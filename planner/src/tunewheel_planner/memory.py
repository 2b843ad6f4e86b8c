"""Bytes at the peak of a training step, part by part.

Weights, gradients and Adam's moments follow from counts (ZeRO, arXiv:1910.02054 §3.1; QLoRA's 4-bit blocks,
arXiv:2305.14314 §3). Activations follow arXiv:2205.05198 §4, counted anew for a gated MLP, grouped attention
and this project's training code: a LoRA layer keeps its input and ``A x`` (``projection.py`` of train),
frozen norms keep their input in fp32, and only learnt positions reach the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tunewheel_contracts.formats.plan import MemoryParts
from tunewheel_contracts.formats.recipe import TrainMethod

from tunewheel_planner.shapes import ALL_LINEAR, ModelShape

Precision = Literal["bfloat16", "float32"]
SIZE: dict[Precision, int] = {"bfloat16": 2, "float32": 4}
FP32 = 4
NF4_BLOCK = 64
"""Weights that share one scale; scales are 8-bit themselves, 256 share an fp32 (double quantisation)."""
NF4_BYTES = 0.5 + 1 / NF4_BLOCK + FP32 / (NF4_BLOCK * 256)
EXPLICIT_UP_TO = 768
"""Up to this many tokens attention on the CPU keeps its scores (``attention.py`` of train)."""
FRAMEWORK: dict[str, int] = {"cpu": 1_300_000_000, "cuda": 1_200_000_000}
"""CPU: 0.9 GB resident after the imports, and what glibc keeps between steps instead of giving it back
(``process.py`` of train); measured by the bench ``planner``. CUDA: context, cuBLAS workspaces, gaps."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The largest micro-batch: ``tokens`` in its row, ``longest`` in an example, ``learnt`` of all."""

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
    """Sum up one step of ``method`` in one process; ``kind`` is where it runs.

    ``reference``: the adapter that the trained one is held to lies beside it. ``shards``: of so many parts of
    the base each process holds one; adapters are whole in all.
    """
    adapter = 0 if method is TrainMethod.FULL else shape.adapter_parameters(rank, targets)
    trained = adapter or math.ceil(shape.parameters / shards)
    moments = 2 if eight_bit_optimizer else 2 * FP32
    kept = _per_token(shape, method, rank, targets, precision)
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
    """The base as it lies in memory while it is trained on.

    ``full``: fp32 masters, and the copies that autocast makes of them when it computes in bf16.
    """
    if method is TrainMethod.FULL:
        copies = SIZE[precision] if precision != "float32" else 0
        return shape.parameters * (FP32 + copies)
    if method is TrainMethod.LORA:
        return shape.parameters * SIZE[precision]
    rest = shape.parameters - shape.linear_parameters
    return round(shape.linear_parameters * NF4_BYTES) + rest * SIZE[precision]


def _weights_in_process(shape: ModelShape, method: TrainMethod, precision: Precision, shards: int) -> int:
    """A process's part of the base, and what it gathers to compute with: the block at hand and the next, or
    the embeddings."""
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
    layer = rows.tokens * kept
    layer += _scores(shape, rows, precision, kind)
    ends = rows.tokens * shape.hidden * (SIZE[precision] + FP32)
    if not gradient_checkpointing:
        return shape.layers * layer + ends
    # Every block keeps its input; one block at a time is computed again (arXiv:1604.06174).
    return shape.layers * rows.tokens * shape.hidden * SIZE[precision] + layer + ends


def _per_token(
    shape: ModelShape, method: TrainMethod, rank: int, targets: str | Sequence[str], precision: Precision
) -> int:
    """Bytes that one token keeps in one block on average, attention's scores aside."""
    h, q, k, i = shape.hidden, shape.query, shape.key, shape.intermediate
    trained = ALL_LINEAR if method is TrainMethod.FULL else targets
    shares = [blocks / shape.layers for blocks in shape.adapted(trained)]
    # a frozen layer keeps no input: those of qkv, o, gate/up and down
    inputs = h * max(shares[:3]) + q * shares[3] + h * max(shares[4:6]) + i * shares[6]
    # q, k and v as attention takes them; gate, its SiLU, up
    kept = inputs + (q + 4 * k) + 3 * i
    norms = 2 * h * FP32
    of_layers = 2 * h if method is TrainMethod.FULL else sum(shares) * rank
    return round((kept + of_layers) * SIZE[precision]) + norms


def _scores(shape: ModelShape, rows: Rows, precision: Precision, kind: Literal["cpu", "cuda"]) -> int:
    """Attention's probabilities: in fp32 and rounded where kept, one fp32 per row and head where not."""
    if kind == "cuda" or rows.longest > EXPLICIT_UP_TO:
        return rows.tokens * shape.heads * FP32
    rounded = SIZE[precision] if precision != "float32" else 0
    return rows.tokens * rows.longest * shape.heads * (FP32 + rounded)

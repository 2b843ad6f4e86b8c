"""Estimates tokens per second, from floating-point operations and the share of a device's peak that training
reaches.

A forward pass costs 2 operations per parameter and token. A backward pass costs 2 for the gradients of
activations and 2 for those of weights (Kaplan et al., arXiv:2001.08361 §2.1). Frozen weights have no
gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.plan import Interval

from tunewheel_planner.devices import Device
from tunewheel_planner.memory import Precision
from tunewheel_planner.shapes import ALL_LINEAR, ModelShape

EXPANDING_4_BIT = 40.0
"""The cost of dequantising one 4-bit weight, in operations. It is done twice per micro-batch."""


def operations_per_token(
    shape: ModelShape,
    *,
    method: TrainMethod,
    rank: int = 16,
    targets: str | Sequence[str] = ALL_LINEAR,
    longest: int = 512,
    learnt_share: float = 0.3,
    row_tokens: int = 4096,
    gradient_checkpointing: bool = False,
    further_passes: int = 0,
) -> float:
    """Return the floating-point operations per trained token.

    ``longest``: the length of a sequence for attention. ``learnt_share``: the share of tokens that reach the
    vocabulary. ``row_tokens``: the tokens of a micro-batch; 4-bit weights are dequantised once for them per
    pass. ``further_passes``: forward passes without gradients, such as a reference's.
    """
    head = shape.vocabulary * shape.hidden * learnt_share
    attention = 2.0 * shape.layers * shape.query * longest  # two products: QKᵀ and AV
    forward = 2.0 * (shape.linear_parameters + head + attention)
    if not method.traits.adapter:
        total = 3.0 * forward
    else:
        # gradients of activations only; attention needs them for both inputs of each product
        total = 2.0 * forward + 2.0 * attention + 6.0 * shape.adapter_parameters(rank, targets)
    passes = further_passes + (1 if gradient_checkpointing else 0)
    if method.traits.quantization is not None:
        expanding = EXPANDING_4_BIT * shape.linear_parameters / max(row_tokens, 1)
        total += (2.0 + further_passes) * expanding
    return total + passes * forward


def tokens_per_second(device: Device, operations: float, *, precision: Precision) -> Interval:
    """Return the tokens per second of ``device`` in ``precision``, at ``operations`` per token."""
    share = device.efficiency
    peak = device.teraflops_in(precision) * 1e12 / operations
    return Interval(low=peak * share.low, expected=peak * share.expected, high=peak * share.high)

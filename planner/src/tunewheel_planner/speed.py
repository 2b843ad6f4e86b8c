"""Estimates the time of a step, by a roofline: arithmetic, memory traffic, and the launching of kernels.

A forward pass costs 2 operations per parameter and token. A backward pass costs 2 for the gradients of
activations and 2 for those of weights (Kaplan et al., arXiv:2001.08361 §2.1). Frozen weights have no
gradients. A GPU also moves activations and 4-bit weights through its memory, and takes no less time than the
host needs to launch its kernels. The figures of ``Costs`` are fitted to published runs of other trainers
(``tests/published.json``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.plan import Interval

from tunewheel_planner.devices import Device
from tunewheel_planner.memory import FP32, SIZE, Precision, kept_per_token, weights_bytes
from tunewheel_planner.shapes import ALL_LINEAR, ModelShape

EXPANDING_ON_CPU = 40.0
"""Operations for dequantising one 4-bit weight on a processor, which is done twice per micro-batch."""
ADAM_BYTES = 7 * FP32
"""What AdamW reads and writes per trained parameter: weight, gradient and two moments, and back without the
gradient."""
BETWEEN_NODES = 50e9
"""Bytes per second from a GPU to another node: 400 Gbit/s for each GPU, as in a DGX H100."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a GPU's step costs beside its arithmetic."""

    traffic: float = 6.9
    """How often each kept byte of activations crosses the memory in each pass."""
    launching: float = 1.38e-3
    """Seconds of the host for one block's forward pass. A backward pass takes twice as long."""
    launching_4_bit: float = 1.31
    """The factor by which a 4-bit base makes launching longer."""
    expanding: float = 15.0
    """Bytes of memory traffic for dequantising one 4-bit weight."""


@dataclass(frozen=True)
class Work:
    """One micro-batch of one process."""

    shape: ModelShape
    method: TrainMethod
    tokens: float
    """Tokens that are computed. A shared beginning counts once."""
    longest: int = 512
    """The length of a sequence for attention."""
    learnt_share: float = 0.3
    """The share of tokens that reach the vocabulary."""
    rank: int = 16
    targets: str | Sequence[str] = ALL_LINEAR
    precision: Precision = "bfloat16"
    gradient_checkpointing: bool = False
    further_passes: int = 0
    """Forward passes without gradients, such as a reference's."""
    shards: int = 1

    @property
    def quantized(self) -> bool:
        return self.method.traits.quantization is not None

    @property
    def passes(self) -> int:
        """How often the weights are read: forward, backward, again to recompute, and further passes."""
        return 2 + self.gradient_checkpointing + self.further_passes

    @cached_property
    def trained(self) -> int:
        if self.method.traits.adapter:
            return self.shape.adapter_parameters(self.rank, self.targets)
        return self.shape.parameters

    @cached_property
    def kept(self) -> float:
        """Bytes of activations that are kept for the backward pass, if none are recomputed."""
        of_block = kept_per_token(self.shape, self.method, self.rank, self.targets, self.precision)
        return self.tokens * self.shape.layers * of_block

    @cached_property
    def operations(self) -> float:
        """Floating-point operations."""
        shape = self.shape
        head = shape.vocabulary * shape.hidden * self.learnt_share
        attention = 1.0 * shape.layers * shape.query * self.longest  # QKᵀ and AV, of which a causal half
        forward = 2.0 * (shape.active_parameters + head + attention)
        if not self.method.traits.adapter:
            total = 3.0 * forward
        else:
            # gradients of activations only; attention needs them for both inputs of each product
            total = 2.0 * forward + 2.0 * attention + 6.0 * self.trained * shape.active_share
        recomputed = self.gradient_checkpointing * 2.0 * (shape.active_parameters + attention)
        return self.tokens * (total + recomputed + self.further_passes * forward)


def seconds(device: Device, work: Work, costs: Costs = Costs()) -> float:
    """Return the expected time of ``work`` on ``device``, without the optimizer."""
    peak = device.teraflops_in(work.precision) * 1e12 * device.efficiency.expected
    shape, counted = work.shape, work.operations
    if device.kind == "cpu":
        expanding = EXPANDING_ON_CPU * shape.linear_parameters * work.quantized
        return (counted + (2.0 + work.further_passes) * expanding) / peak
    moved = costs.traffic * work.kept + costs.expanding * shape.linear_parameters * work.quantized
    read = shape.linear_parameters * SIZE[work.precision]
    computing = max(counted / peak, work.passes * read / device.bandwidth)
    computing += work.passes * moved / device.bandwidth
    launching = (work.passes + 1) * shape.layers * costs.launching
    return max(computing, launching * (costs.launching_4_bit if work.quantized else 1.0))


def exchanging(device: Device, work: Work, *, processes: int, nodes: int) -> tuple[float, float]:
    """Return the seconds for which ``processes`` exchange data: in each micro-batch the parts of sharded
    weights, which overlaps with computing, and in each step the gradients."""
    if device.kind == "cpu" or processes == 1:
        return 0.0, 0.0
    link, others = BETWEEN_NODES if nodes > 1 else device.link, (processes - 1) / processes
    weights = weights_bytes(work.shape, work.method, work.precision) if work.shards > 1 else 0
    return work.passes * weights * others / link, 2 * FP32 * work.trained * others / link


def updating(device: Device, work: Work) -> float:
    """Return the seconds of the optimizer in one step."""
    if device.kind == "cpu":
        return 0.0
    own = work.trained / (1 if work.method.traits.adapter else work.shards)
    return ADAM_BYTES * own / device.bandwidth


def tokens_per_second(device: Device, tokens: float, expected_seconds: float) -> Interval:
    """Return the speed at which ``tokens`` take ``expected_seconds``, with the bounds of ``device``."""
    share, rate = device.efficiency, tokens / expected_seconds
    return Interval(
        low=rate * share.low / share.expected, expected=rate, high=rate * share.high / share.expected
    )

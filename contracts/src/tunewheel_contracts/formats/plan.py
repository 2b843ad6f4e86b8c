"""The plan of a training run: its estimated needs. It is made before the run, and stored with the measured
usage."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import FiniteFloat, Frozen
from tunewheel_contracts.formats.methods import TrainMethod

Bytes = Annotated[int, Field(ge=0)]
Positive = Annotated[FiniteFloat, Field(gt=0)]


class Interval(Frozen):
    """An estimate with bounds. About 80 % of runs are within the bounds."""

    low: Annotated[FiniteFloat, Field(ge=0)]
    expected: Annotated[FiniteFloat, Field(ge=0)]
    high: Annotated[FiniteFloat, Field(ge=0)]

    def scaled(self, factor: float) -> Interval:
        return Interval(low=self.low * factor, expected=self.expected * factor, high=self.high * factor)


class MemoryParts(Frozen):
    """Bytes of memory at the peak of a training step, by content."""

    weights: Bytes
    """The base model, in the precision and quantization of the training."""
    adapters: Bytes
    """The LoRA matrices in fp32; 0 for ``full``."""
    gradients: Bytes
    optimizer: Bytes
    """Adam's two moments."""
    activations: Bytes
    """Activations that one micro-batch keeps for its backward pass."""
    logits: Bytes
    """Logits of the positions with a loss, and their gradient."""
    framework: Bytes
    """Python, PyTorch and kernels, before a model is loaded."""

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in MemoryParts.model_fields)


class ValidationPlan(Frozen):
    """How often a run is validated, on how many rows, and the cost."""

    examples: Annotated[int, Field(gt=0)]
    every_steps: Annotated[int, Field(gt=0)]
    """Optimizer steps between two validations, a multiple of ``checkpoint_steps``. The last step is always
    validated."""
    times: Annotated[int, Field(gt=0)]
    """Number of validations in a run that is not stopped early."""
    share: Annotated[FiniteFloat, Field(ge=0)]
    """Cost of the validations, as a share of the computation for training on the examples."""


class TrainPlan(Frozen):
    """One way to train a dataset on a device, with its estimated needs."""

    method: TrainMethod
    device: str
    """Name of the device in the device catalogue."""
    teraflops: Positive | None = None
    """The device's peak in the run's precision, as used by the plan. For a processor it was measured."""
    parameters: Annotated[int, Field(gt=0)]
    """Number of parameters of the base model."""
    micro_batch_size: Annotated[int, Field(gt=0)]
    gradient_checkpointing: bool = False
    """Whether activations are recomputed in the backward pass instead of being kept."""
    fits: bool
    advice: str = ""
    """What to change if the run does not fit into memory."""
    memory: MemoryParts
    peak_bytes: Bytes
    """The sum of the parts, corrected by measurements of earlier runs."""
    available_bytes: Bytes
    """Memory that one process may use."""
    processes: Annotated[int, Field(gt=0)] = 1
    """Number of processes that train together. The memory and the teraflops are those of one."""
    tokens: Annotated[int, Field(ge=0)]
    """Number of tokens in all epochs and stages, without padding."""
    tokens_per_second: Interval
    hours: Interval
    """Time for loading, training and validating."""
    dollars: Interval | None = None
    """Cost of the run; null: the device has no price."""
    speed_factor: Positive = 1.0
    """How much faster earlier runs were than the formulas; the estimates include this factor."""
    memory_factor: Positive = 1.0
    calibrated_by: Annotated[int, Field(ge=0)] = 0
    """Number of earlier runs from which the factors were computed."""
    validation: ValidationPlan | None = None
    """Null: there are no validation rows."""

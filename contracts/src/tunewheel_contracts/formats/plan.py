"""What a run will need, said before it starts and kept beside what it took."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import FiniteFloat, Frozen
from tunewheel_contracts.formats.recipe import TrainMethod

Bytes = Annotated[int, Field(ge=0)]
Positive = Annotated[FiniteFloat, Field(gt=0)]


class Interval(Frozen):
    """An estimate between two bounds; roughly four of five runs end between them."""

    low: Annotated[FiniteFloat, Field(ge=0)]
    expected: Annotated[FiniteFloat, Field(ge=0)]
    high: Annotated[FiniteFloat, Field(ge=0)]

    def scaled(self, factor: float) -> Interval:
        return Interval(low=self.low * factor, expected=self.expected * factor, high=self.high * factor)


class MemoryParts(Frozen):
    """Bytes at the peak of a training step, by what they hold."""

    weights: Bytes
    """The base model in the form it is trained on."""
    adapters: Bytes
    """LoRA's matrices in fp32; 0 for ``full``."""
    gradients: Bytes
    optimizer: Bytes
    """Adam's two moments."""
    activations: Bytes
    """What one micro-batch keeps for its backward pass."""
    logits: Bytes
    """Logits of the learnt positions, and their gradient."""
    framework: Bytes
    """Python, PyTorch and kernels, before a model is loaded."""

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in MemoryParts.model_fields)


class ValidationPlan(Frozen):
    """How often how much is validated on, and what that costs."""

    examples: Annotated[int, Field(gt=0)]
    every_steps: Annotated[int, Field(gt=0)]
    """Optimizer steps between two validations, a multiple of ``checkpoint_steps``; the last step is one."""
    times: Annotated[int, Field(gt=0)]
    """Validations of a run that is not stopped early."""
    share: Annotated[FiniteFloat, Field(ge=0)]
    """Of the computation that training on the examples takes."""


class TrainPlan(Frozen):
    """One way to train one dataset on one device, with what it will take."""

    method: TrainMethod
    device: str
    """A name of the device catalogue."""
    teraflops: Positive | None = None
    """What the plan took for the device's peak in the run's precision; of a processor it was measured."""
    parameters: Annotated[int, Field(gt=0)]
    """Of the base model."""
    micro_batch_size: Annotated[int, Field(gt=0)]
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them."""
    fits: bool
    advice: str = ""
    """What to change where it does not fit."""
    memory: MemoryParts
    peak_bytes: Bytes
    """The parts' sum, corrected by earlier runs."""
    available_bytes: Bytes
    tokens: Annotated[int, Field(ge=0)]
    """Tokens of all epochs and stages, padding excluded."""
    tokens_per_second: Interval
    hours: Interval
    """Of loading, training and validating."""
    dollars: Interval | None = None
    """None: the device has no price."""
    speed_factor: Positive = 1.0
    """By how much earlier runs were faster than the formulas say; contained in the figures."""
    memory_factor: Positive = 1.0
    calibrated_by: Annotated[int, Field(ge=0)] = 0
    """Earlier runs that the factors come from."""
    validation: ValidationPlan | None = None
    """None: nothing is held back to validate on."""

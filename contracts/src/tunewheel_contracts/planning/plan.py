"""From a model, a dataset, a recipe and a device to what a run will take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tunewheel_contracts.formats.plan import Interval, MemoryParts, TrainPlan
from tunewheel_contracts.formats.recipe import TrainMethod, TrainSpec
from tunewheel_contracts.planning.calibration import Correction
from tunewheel_contracts.planning.devices import Device
from tunewheel_contracts.planning.memory import Precision, Rows, estimate_memory
from tunewheel_contracts.planning.shapes import ModelShape
from tunewheel_contracts.planning.speed import operations_per_token, tokens_per_second

HEADROOM = 0.93
"""Share of a device's memory that a plan fills: allocators leave gaps."""
START_SECONDS = 20.0
"""Imports, loading, and the last save."""


@dataclass(frozen=True, slots=True)
class DatasetStats:
    """Token counts over one epoch; ``learnt`` are those that the loss is taken on."""

    examples: int
    tokens: int
    longest: int
    learnt: int
    prefix: int = 0
    """Tokens that all examples begin with; a micro-batch holds them once."""

    def __post_init__(self) -> None:
        if self.examples < 1 or self.tokens < self.examples or self.longest < 1:
            raise ValueError("a dataset to plan for has examples, and tokens in each")

    def rows(self, micro_batch_size: int) -> Rows:
        """The largest micro-batch there can be: as many of the longest."""
        tokens = self.prefix + micro_batch_size * (self.longest - self.prefix)
        learnt = math.ceil(self.learnt * micro_batch_size * self.longest / self.tokens)
        return Rows(tokens=tokens, longest=self.longest, learnt=learnt)


def make_plan(
    shape: ModelShape,
    stats: DatasetStats,
    recipe: TrainSpec,
    device: Device,
    *,
    correction: Correction = Correction(),
    precision: Precision | None = None,
) -> TrainPlan:
    """Plan ``recipe`` as it is written, changed only where it would not fit; ``correction`` is what earlier
    runs of its method on ``device`` say.

    Tried in order: as written; with gradient checkpointing; with smaller micro-batches, which divide
    ``batch_size``. What fits none of these is planned in the smallest form, with advice.
    """
    number = precision or ("bfloat16" if device.bfloat16 else "float32")
    plan: TrainPlan | None = None
    for micro, checkpointing in _ladder(recipe):
        plan = _plan(shape, stats, recipe, device, correction, number, micro, checkpointing)
        if plan.fits:
            return plan
    assert plan is not None
    return plan.model_copy(update={"advice": _advice(recipe.method, plan, device)})


def _ladder(recipe: TrainSpec) -> Iterator[tuple[int, bool]]:
    yield recipe.micro_batch_size, False
    for micro in range(recipe.micro_batch_size, 0, -1):
        if recipe.batch_size % micro == 0:
            yield micro, True


def _plan(
    shape: ModelShape,
    stats: DatasetStats,
    recipe: TrainSpec,
    device: Device,
    correction: Correction,
    precision: Precision,
    micro: int,
    checkpointing: bool,
) -> TrainPlan:
    rows = stats.rows(micro)
    memory = estimate_memory(
        shape, rows, method=recipe.method, rank=recipe.rank, precision=precision, kind=device.kind,
        gradient_checkpointing=checkpointing,
        eight_bit_optimizer=recipe.method is TrainMethod.QLORA and device.kind == "cuda",
    )  # fmt: skip
    peak = round(memory.total * correction.memory)
    mean = stats.tokens / stats.examples
    operations = operations_per_token(
        shape, method=recipe.method, rank=recipe.rank, longest=round(mean),
        learnt_share=stats.learnt / stats.tokens, row_tokens=round(mean * micro),
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    # Shared beginnings are computed once and counted with every example.
    operations *= (stats.prefix + micro * (mean - stats.prefix)) / (micro * mean)
    speed = correction.around(tokens_per_second(device, operations, precision=precision))
    tokens = round(stats.tokens * recipe.epochs)
    hours = _hours(tokens, speed)
    return TrainPlan(
        method=recipe.method, device=device.name, teraflops=device.teraflops_in(precision),
        parameters=shape.parameters, micro_batch_size=micro,
        gradient_checkpointing=checkpointing, fits=peak <= device.memory_bytes * HEADROOM,
        memory=memory, peak_bytes=peak, available_bytes=device.memory_bytes, tokens=tokens,
        tokens_per_second=speed, hours=hours, dollars=_dollars(hours, device),
        speed_factor=correction.speed, memory_factor=correction.memory, calibrated_by=correction.runs,
    )  # fmt: skip


def _hours(tokens: int, speed: Interval) -> Interval:
    fastest, expected, slowest = (
        (tokens / rate + START_SECONDS) / 3600 for rate in (speed.high, speed.expected, speed.low)
    )
    return Interval(low=fastest, expected=expected, high=slowest)


def _dollars(hours: Interval, device: Device) -> Interval | None:
    if device.dollars_per_hour is None:
        return None
    least, most = device.dollars_per_hour
    return Interval(
        low=hours.low * least, expected=hours.expected * math.sqrt(least * most), high=hours.high * most
    )


def _advice(method: TrainMethod, plan: TrainPlan, device: Device) -> str:
    needed = f"{plan.peak_bytes / 1e9:.0f} GB are needed, {device.name} has {device.memory_bytes / 1e9:.0f}"
    largest = max(MemoryParts.model_fields, key=lambda name: getattr(plan.memory, name))
    if method is TrainMethod.FULL:
        return f"{needed}: train an adapter (method lora)"
    if largest == "activations":
        return f"{needed}, most of them for activations: lower max_tokens"
    if method is TrainMethod.LORA:
        return f"{needed}: quantise the base (method qlora), or take a larger device"
    return f"{needed}: take a larger device or a smaller base model"

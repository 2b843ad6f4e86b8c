"""Plans a run: estimates memory, time and cost from a model, a dataset, a recipe and a device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.plan import Interval, MemoryParts, TrainPlan, ValidationPlan
from tunewheel_contracts.formats.recipe import CHECKPOINT_SECONDS, CHECKPOINT_SHARE, TrainSpec

from tunewheel_planner.calibration import Correction
from tunewheel_planner.devices import Device
from tunewheel_planner.memory import FRAMEWORK, SIZE, Precision, Rows, estimate_memory
from tunewheel_planner.shapes import ModelShape
from tunewheel_planner.speed import Work, exchanging, seconds, tokens_per_second, updating
from tunewheel_planner.validation import count_steps, most_validated, plan_validation

PARTS = 2
"""The parts of an adapter's step on a processor. Two processes of one thread each are about 1.7 times as fast
as one of two threads, which wait for each other after every operation."""
HEADROOM = 0.93
"""The share of a device's memory that a plan may fill. Allocators leave gaps."""
EQUALLY_FAST = 0.01
"""A difference in speed for which no smaller micro-batch is taken."""
START_SECONDS = 20.0
"""Time for imports and the last save."""
LOADING = 1e9
"""Bytes per second when a base is read from the disk into memory."""
DOWNLOADING = 100e6
"""Bytes per second from the hub."""
SAVING = 200e6
"""Bytes per second when a checkpoint is written, read again and hashed (SHA-256)."""


@dataclass(frozen=True, slots=True)
class DatasetStats:
    """Token counts of one epoch. ``learnt`` counts the tokens with a loss."""

    examples: int
    """The number of units that ``batch_size`` counts: examples, or pairs of answers."""
    tokens: int
    longest: int
    """Tokens of the longest sequence."""
    learnt: int
    prefix: int = 0
    """Tokens at the start of all examples. A micro-batch holds them once."""
    sequences: int = 0
    """The number of conversations; a pair has two. 0: each example is one conversation."""
    validation: ValidationPlan | None = None
    """The validation on further examples."""

    def __post_init__(self) -> None:
        if self.examples < 1 or self.tokens < self.examples or self.longest < 1:
            raise ValueError("a dataset to plan for has examples, and tokens in each")

    @property
    def mean(self) -> float:
        """Mean tokens of a sequence."""
        return self.tokens / (self.sequences or self.examples)

    def sequences_of(self, micro_batch_size: int) -> int:
        """Return the number of conversations in a micro-batch."""
        return micro_batch_size * math.ceil((self.sequences or self.examples) / self.examples)

    def rows(self, micro_batch_size: int) -> Rows:
        """Return the largest possible micro-batch, which holds only sequences of the greatest length."""
        sequences = self.sequences_of(micro_batch_size)
        tokens = self.prefix + sequences * (self.longest - self.prefix)
        learnt = math.ceil(self.learnt * sequences * self.longest / self.tokens)
        return Rows(tokens=tokens, longest=self.longest, learnt=learnt)


def hold_back(stats: DatasetStats, recipe: TrainSpec) -> DatasetStats:
    """Estimate, from the ``stats`` of all examples, those of the training examples: ``recipe`` validates on
    the others. The train service counts exactly instead."""
    held = most_validated(stats.examples, recipe)
    examples = stats.examples - held
    tokens = round(stats.tokens * examples / stats.examples)
    validation = plan_validation(
        examples=held, tokens=stats.tokens - tokens, trained_tokens=tokens * recipe.epochs,
        steps=count_steps(examples, batch_size=recipe.batch_size, epochs=recipe.epochs), recipe=recipe,
    )  # fmt: skip
    if validation is None:
        return stats
    learnt = round(stats.learnt * examples / stats.examples)
    return replace(stats, examples=examples, tokens=tokens, learnt=learnt, validation=validation)


def make_plan(
    shape: ModelShape,
    stats: DatasetStats,
    recipe: TrainSpec,
    device: Device,
    *,
    pairs: DatasetStats | None = None,
    correction: Correction = Correction(),
    precision: Precision | None = None,
    processes: int = 1,
    nodes: int = 1,
    shards: int = 1,
    download: bool = False,
) -> TrainPlan:
    """Plan ``recipe`` as written, or with changes if it would not fit the memory.

    ``stats``: the examples. ``pairs``: the pairs of answers for ``preference``. ``correction``: from earlier
    runs of the method on ``device``.

    ``processes`` on ``nodes`` train together and hold the base in ``shards``. Each has a GPU of its own, or
    its part of the processor's memory. The plan's bytes are those of one process. ``download``: the base is
    fetched from the hub first.

    Of the ``rungs`` that fit, the plan takes the one with the highest expected speed. If none fits, the plan
    is for the last rung and holds advice.
    """
    number = precision or ("bfloat16" if device.bfloat16 else "float32")
    frame = _Frame(shape, recipe, device, correction, number, processes, nodes, shards, download)
    stages = _stages(stats, pairs, recipe)
    plans = [_plan(frame, stages, micro, checkpointing) for micro, checkpointing in rungs(recipe)]
    if fitting := [plan for plan in plans if plan.fits]:
        enough = max(plan.tokens_per_second.expected for plan in fitting) * (1 - EQUALLY_FAST)
        return next(plan for plan in fitting if plan.tokens_per_second.expected >= enough)
    return plans[-1].model_copy(update={"advice": _advice(recipe.method, plans[-1], device)})


def duration(hours: Interval) -> str:
    """Return a time in minutes below an hour, else in hours."""
    if hours.high < 1:
        low, high = (max(1, round(60 * end)) for end in (hours.low, hours.high))
        return f"{low} min" if low == high else f"{low}-{high} min"
    return f"{hours.low:.1f}-{hours.high:.1f} h"


def rungs(recipe: TrainSpec) -> list[tuple[int, bool]]:
    """Return the forms in which ``recipe`` may be trained, as (micro-batch size, gradient checkpointing).

    Smaller micro-batches, which divide ``batch_size``, come before recomputing: with a frozen base,
    recomputing costs half as much again, and a smaller micro-batch hardly anything.
    """
    sizes = [n for n in range(recipe.micro_batch_size, 0, -1) if recipe.batch_size % n == 0]
    return [(size, checkpointing) for checkpointing in (False, True) for size in sizes]


def parts_of(method: TrainMethod, kind: Literal["cpu", "cuda"]) -> int:
    """Return into how many parts a step is divided at least. On a processor two processes or one compute the
    parts of an adapter's step, and add the same sums."""
    return PARTS if kind == "cpu" and method.traits.adapter else 1


def processes_of(
    recipe: TrainSpec, parameters: int | None, *, memory_bytes: int, threads: int, precision: Precision
) -> int:
    """Return how many processes train ``recipe`` on a processor of ``threads`` threads: one per part of a
    step, if their copies of a base of ``parameters`` leave half of the memory to the computation."""
    parts = min(parts_of(recipe.method, "cpu"), recipe.batch_size)
    if parameters is None or threads < parts or recipe.reward is not None:
        return 1
    copies = parts * (parameters * SIZE[precision] + FRAMEWORK["cpu"])
    return parts if 2 * copies <= memory_bytes else 1


def can_shard(recipe: TrainSpec) -> bool:
    """Return whether processes can divide the base of ``recipe``: no 4-bit base, and no DoRA."""
    return recipe.method.traits.quantization is None and not recipe.dora


@dataclass(frozen=True, slots=True)
class _Frame:
    """The inputs that are the same for all stages of a run and all forms that are tried."""

    shape: ModelShape
    recipe: TrainSpec
    device: Device
    correction: Correction
    precision: Precision
    processes: int
    nodes: int
    shards: int
    download: bool

    @property
    def available_bytes(self) -> int:
        """Memory available to one process."""
        return self.device.memory_bytes // (self.processes if self.device.kind == "cpu" else 1)

    def in_process(self, micro_batch_size: int) -> int:
        """Return the examples of a micro-batch in one process, which computes its part of each step."""
        parts = max(self.processes, parts_of(self.recipe.method, self.device.kind))
        return min(micro_batch_size, math.ceil(self.recipe.batch_size / parts))


@dataclass(frozen=True, slots=True)
class _Stage:
    """One pass of training over its own data."""

    stats: DatasetStats
    epochs: float
    further_passes: int = 0
    """Forward passes in addition to training's."""

    @property
    def tokens(self) -> float:
        return self.stats.tokens * self.epochs

    @property
    def share_validating(self) -> float:
        return self.stats.validation.share if self.stats.validation else 0.0


def _stages(stats: DatasetStats, pairs: DatasetStats | None, recipe: TrainSpec) -> list[_Stage]:
    examples, preference = _Stage(stats, recipe.epochs), recipe.preference
    if (reward := recipe.reward) is not None:
        answers = reward.steps * reward.prompts * reward.answers
        share = answers / stats.examples
        written = replace(
            stats, examples=answers, tokens=round(stats.tokens * share), learnt=round(stats.learnt * share),
            prefix=0, validation=None,
        )  # fmt: skip
        # Passes of the model that writes and of the reference. Writing token by token takes longer.
        return [examples, _Stage(written, 1.0, further_passes=2)]
    if preference is None or pairs is None:
        return [examples]
    learning = _Stage(pairs, preference.epochs, preference.method.traits.further_passes)
    return [learning] if preference.alone else [examples, learning]


def _plan(frame: _Frame, stages: Sequence[_Stage], micro: int, checkpointing: bool) -> TrainPlan:
    recipe, device, correction = frame.recipe, frame.device, frame.correction
    memory = max((_memory(frame, stage, micro, checkpointing) for stage in stages), key=lambda m: m.total)
    peak = round(memory.total * correction.memory)
    speeds = [_speed(frame, stage, micro, checkpointing) for stage in stages]
    hours = _hours(frame, stages, speeds)
    return TrainPlan(
        method=recipe.method, device=device.name, teraflops=device.teraflops_in(frame.precision),
        parameters=frame.shape.parameters, micro_batch_size=micro,
        gradient_checkpointing=checkpointing, fits=peak <= frame.available_bytes * HEADROOM,
        memory=memory, peak_bytes=peak, available_bytes=frame.available_bytes, processes=frame.processes,
        tokens=round(sum(stage.tokens for stage in stages)), tokens_per_second=_mean_speed(stages, speeds),
        hours=hours, dollars=_dollars(hours, device, frame.processes),
        speed_factor=correction.speed, memory_factor=correction.memory, calibrated_by=correction.runs,
        validation=stages[0].stats.validation,
    )  # fmt: skip


def _memory(frame: _Frame, stage: _Stage, micro: int, checkpointing: bool) -> MemoryParts:
    recipe, kind = frame.recipe, frame.device.kind
    return estimate_memory(
        frame.shape, stage.stats.rows(frame.in_process(micro)), method=recipe.method, rank=recipe.rank,
        targets=recipe.target_modules, precision=frame.precision, kind=kind,
        gradient_checkpointing=checkpointing,
        eight_bit_optimizer=recipe.method.traits.paged_moments and kind == "cuda",
        reference=stage.further_passes > 0, shards=frame.shards,
    )  # fmt: skip


def _speed(frame: _Frame, stage: _Stage, micro: int, checkpointing: bool) -> Interval:
    """Return the tokens per second of all processes."""
    stats, recipe, device = stage.stats, frame.recipe, frame.device
    mean, sequences = stats.mean, stats.sequences_of(frame.in_process(micro))
    work = Work(
        frame.shape, recipe.method, rank=recipe.rank, targets=recipe.target_modules, longest=round(mean),
        # A shared prefix is computed once, but the tokens count it in every example.
        tokens=stats.prefix + sequences * (mean - stats.prefix),
        learnt_share=stats.learnt / stats.tokens, precision=frame.precision,
        gradient_checkpointing=checkpointing, further_passes=stage.further_passes, shards=frame.shards,
    )  # fmt: skip
    gathering, reducing = exchanging(device, work, processes=frame.processes, nodes=frame.nodes)
    micros = max(1.0, recipe.batch_size / frame.processes / frame.in_process(micro))
    expected = max(seconds(device, work), gathering) + (reducing + updating(device, work)) / micros
    return frame.correction.around(tokens_per_second(device, sequences * mean, expected)).scaled(
        frame.processes
    )


def _mean_speed(stages: Sequence[_Stage], speeds: Sequence[Interval]) -> Interval:
    """Return the mean tokens per second over all stages."""
    if len(stages) == 1:
        return speeds[0]
    tokens = sum(stage.tokens for stage in stages)
    low, expected, high = (
        tokens / sum(stage.tokens / rate for stage, rate in zip(stages, rates, strict=True))
        for rates in _by_bound(speeds)
    )
    return Interval(low=low, expected=expected, high=high)


def _hours(frame: _Frame, stages: Sequence[_Stage], speeds: Sequence[Interval]) -> Interval:
    work = [stage.tokens * (1 + stage.share_validating) for stage in stages]
    slowest, expected, fastest = (
        _with_what_is_beside(frame, stages, sum(t / rate for t, rate in zip(work, rates, strict=True))) / 3600
        for rates in _by_bound(speeds)
    )
    return Interval(low=fastest, expected=expected, high=slowest)


def _with_what_is_beside(frame: _Frame, stages: Sequence[_Stage], seconds: float) -> float:
    """Return the ``seconds`` of steps and the time in which nothing is trained: start, base, and
    checkpoints."""
    recipe, shape = frame.recipe, frame.shape
    base = shape.parameters * SIZE["bfloat16"]
    adapter = shape.adapter_parameters(recipe.rank, recipe.target_modules)
    # weights and Adam's moments in fp32
    checkpoint = 3 * SIZE["float32"] * (adapter if recipe.method.traits.adapter else shape.parameters)
    steps = sum(
        count_steps(stage.stats.examples, batch_size=recipe.batch_size, epochs=stage.epochs)
        for stage in stages
    )
    each = checkpoint / SAVING
    # one at the end, and the others as ``CheckpointWriter.is_due`` says
    others = max(CHECKPOINT_SHARE * seconds, each * (seconds // CHECKPOINT_SECONDS))
    saved = min(math.ceil(steps / recipe.checkpoint_steps) * each, each + others)
    fetched = base / DOWNLOADING if frame.download else 0.0
    return seconds + START_SECONDS + base / LOADING + fetched + saved


def _by_bound(speeds: Sequence[Interval]) -> tuple[list[float], list[float], list[float]]:
    return [s.low for s in speeds], [s.expected for s in speeds], [s.high for s in speeds]


def _dollars(hours: Interval, device: Device, processes: int) -> Interval | None:
    if device.dollars_per_hour is None:
        return None
    least, most = (processes * price for price in device.dollars_per_hour)
    return Interval(
        low=hours.low * least, expected=hours.expected * math.sqrt(least * most), high=hours.high * most
    )


def _advice(method: TrainMethod, plan: TrainPlan, device: Device) -> str:
    needed = f"{plan.peak_bytes / 1e9:.0f} GB are needed, {device.name} has {device.memory_bytes / 1e9:.0f}"
    largest = max(MemoryParts.model_fields, key=lambda name: getattr(plan.memory, name))
    if not method.traits.adapter:
        return f"{needed}: train an adapter (method lora)"
    if largest == "activations":
        return f"{needed}, most of them for activations: lower max_tokens"
    if method.traits.smaller is not None:
        return f"{needed}: quantise the base (method {method.traits.smaller}), or take a larger device"
    return f"{needed}: take a larger device or a smaller base model"

"""Holds the plan's speeds against published ones (``published.json``). The costs are fitted with one source
left out, and judged on that source."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_planner.devices import ON_GPU, Device, catalogue
from tunewheel_planner.shapes import KNOWN, ModelShape
from tunewheel_planner.speed import Costs, Work, exchanging, seconds, updating

PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text())
NAMES = (
    "hidden",
    "layers",
    "heads",
    "kv_heads",
    "head_size",
    "intermediate",
    "vocabulary",
    "context",
    "tied",
)
A6000 = Device(name="a6000", kind="cuda", memory_gib=48, teraflops=154.8, gigabytes_per_second=768)
WITHIN = math.log(1.3)


@dataclass(frozen=True)
class Fit:
    """Fitted figures: the share of the peak, and the costs of a step. ``gptq``: the bytes for expanding a
    weight of that form."""

    share: float
    costs: Costs
    gptq: float


@dataclass(frozen=True)
class Row:
    source: str
    told: str
    work: Work
    form: str | None
    device: Device
    gpus: int
    nodes: int
    published: float

    def predicted(self, fit: Fit) -> float:
        """Tokens per second of one GPU."""
        return self.work.tokens / self._seconds(fit, self.work)

    def over_lora(self, fit: Fit) -> float:
        """The time beside that of LoRA."""
        return self._seconds(fit, self.work) / self._seconds(fit, self.lora)

    @cached_property
    def lora(self) -> Work:
        return replace(self.work, method=TrainMethod.LORA)

    def _seconds(self, fit: Fit, work: Work) -> float:
        device = fast(self.device, fit.share)
        costs = replace(fit.costs, expanding=fit.gptq) if self.form == "gptq" else fit.costs
        gathering, reducing = exchanging(device, work, processes=self.gpus, nodes=self.nodes)
        return max(seconds(device, work, costs), gathering) + reducing + updating(device, work)


@cache
def fast(device: Device, share: float) -> Device:
    return device.model_copy(update={"efficiency": ON_GPU.scaled(share / ON_GPU.expected)})


def shape_of(name: str) -> ModelShape:
    sizes = PUBLISHED["shapes"].get(name)
    return KNOWN[name] if sizes is None else ModelShape.model_validate(dict(zip(NAMES, sizes, strict=True)))


def row(told: dict[str, Any], length: int, tokens: float, published: float) -> Row:
    device = A6000 if told["device"] == "a6000" else catalogue().named(told["device"])
    assert device is not None
    gpus = told.get("gpus", 1)
    work = Work(
        shape_of(told["model"]), TrainMethod(told.get("method", "qlora")), tokens=tokens, longest=length,
        learnt_share=1.0, rank=told.get("rank", 16), gradient_checkpointing=told.get("checkpointing", False),
        shards=gpus,
    )  # fmt: skip
    name = (
        f"{told['model'].rpartition('/')[2]} {told['device']} x{gpus} {length} {told.get('note', '')}".strip()
    )
    return Row(told["source"], name, work, told.get("format"), device, gpus, told.get("nodes", 1), published)


def read_series() -> list[list[Row]]:
    found: list[list[Row]] = []
    for told in PUBLISHED["series"]:
        micro, speeds = told.get("micro", 1), told.get("tokens_per_second")
        speeds = speeds or [8 * n / s for n, s in zip(told["lengths"], told["seconds_per_8"], strict=True)]
        found.append([row(told, n, micro * n, s) for n, s in zip(told["lengths"], speeds, strict=True)])
    return found


SERIES = read_series()
ROWS = [one for series in SERIES for one in series]
RATIOS = [row(told, 512, told["tokens"], told["lora_over_qlora"]) for told in PUBLISHED["ratios"]]
SOURCES = tuple(PUBLISHED["sources"])


def error(told: float, published: float) -> float:
    """A measure that is square for small differences, and proportional for large ones."""
    x = abs(math.log(told / published))
    return x * x / 2 if x < 0.1 else 0.1 * (x - 0.05)


@cache
def fitted_without(source: str | None) -> Fit:
    """Fit to all sources but ``source``. Each has the same weight."""
    found = [
        [
            *(lambda f, r=r: error(r.predicted(f), r.published) for r in ROWS if r.source == one),
            *(lambda f, r=r: error(r.over_lora(f), r.published) for r in RATIOS if r.source == one),
        ]
        for one in SOURCES
        if one != source
    ]  # fmt: skip
    return descend(found)


def descend(sources: Sequence[Sequence[Callable[[Fit], float]]]) -> Fit:
    """Change one figure at a time by a factor, which shrinks."""

    def fit(x: Sequence[float]) -> Fit:
        return Fit(x[0], Costs(x[1], x[2], x[3], x[4]), x[5])

    def loss(x: Sequence[float]) -> float:
        return sum(sum(one(fit(x)) for one in errors) / len(errors) for errors in sources)

    at, steps = [0.55, 3.0, 1.2e-3, 1.2, 10.0, 20.0], [1.3] * 6
    best = loss(at)
    while max(steps) > 1.02:
        for place in range(len(at)):
            for factor in (steps[place], 1 / steps[place]):
                tried = [x * factor if n == place else x for n, x in enumerate(at)]
                if tried[0] <= 0.85 and (found := loss(tried)) < best - 1e-9:
                    at, best = tried, found
                    break
            else:
                steps[place] **= 0.6
    return fit(at)


def test_enough_is_published() -> None:
    assert len(ROWS) >= 60
    assert len({one.source for one in ROWS}) >= 3
    assert all(PUBLISHED["sources"][one.source].startswith("https://") for one in (*ROWS, *RATIOS))


NIGHTLY = pytest.mark.nightly("matrices")
USED = Fit(ON_GPU.expected, Costs(), 26.0)


def held(rows: Sequence[Row], fit: Callable[[Row], Fit]) -> float:
    """Return the share of ``rows`` whose published speed is within the plan's interval."""
    low, high = ON_GPU.low / ON_GPU.expected, ON_GPU.high / ON_GPU.expected
    return sum(low <= one.published / one.predicted(fit(one)) <= high for one in rows) / len(rows)


def test_the_plan_holds_four_of_five_published_speeds_and_those_of_every_adapter_on_one_h100() -> None:
    assert held(ROWS, lambda _: USED) >= 0.8
    assert held([one for one in ROWS if one.source == "nemo"], lambda _: USED) == 1


@NIGHTLY
def test_four_of_five_intervals_hold_what_was_not_fitted_to() -> None:
    assert held(ROWS, lambda one: fitted_without(one.source)) >= 0.8


@NIGHTLY
def test_the_ratio_of_qlora_to_lora_is_within_30_percent() -> None:
    """All but three are: Qwen-7B at 256 and at 1,024 tokens, and Mistral-7B on an A10G, by a hair."""
    lora = {(one.source, one.told): one for one in ROWS if one.work.method is TrainMethod.LORA}
    off = [math.log(one.over_lora(fitted_without(one.source)) / one.published) for one in RATIOS]
    for one in ROWS:
        other = lora.get((one.source, one.told))
        if one.work.method is TrainMethod.QLORA and other is not None:
            told = other.published / one.published
            off.append(math.log(one.over_lora(fitted_without(one.source)) / told))
    assert len(off) >= 30
    assert sum(abs(one) > WITHIN for one in off) <= 3


@pytest.mark.parametrize(
    "rows", [s for s in SERIES if len(s) > 1], ids=lambda s: f"{s[0].told} {s[0].work.method.value}"
)
def test_the_ratios_over_the_length_are_within_30_percent(rows: list[Row]) -> None:
    """DeepSpeed's ``full`` takes a second per step whatever its length, which this project has not."""
    off = [math.log(one.predicted(fitted_without(one.source)) / one.published) for one in rows]
    middle = sum(off) / len(off)
    inside = [abs(one - middle) <= WITHIN for one in off]
    assert all(inside) == (rows[0].work.method is not TrainMethod.FULL)


@NIGHTLY
def test_the_figures_of_the_planner_are_those_that_fit_all() -> None:
    fit, used = fitted_without(None), Costs()
    assert ON_GPU.expected == pytest.approx(fit.share, rel=0.05)
    assert used.traffic == pytest.approx(fit.costs.traffic, rel=0.1)
    assert used.launching == pytest.approx(fit.costs.launching, rel=0.05)
    assert used.launching_4_bit == pytest.approx(fit.costs.launching_4_bit, rel=0.05)
    assert used.expanding == pytest.approx(fit.costs.expanding, rel=0.1)

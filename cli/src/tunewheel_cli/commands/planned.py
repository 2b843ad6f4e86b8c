"""Shows plans: a table for people, JSON for machines."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunewheel_planner.plan import duration

from tunewheel_cli.exits import plain, print_json
from tunewheel_cli.planning import recommended

if TYPE_CHECKING:
    from tunewheel_contracts.api.datasets import Power
    from tunewheel_contracts.formats.plan import Interval
    from tunewheel_planner.advice import Advice
    from tunewheel_planner.plan import DatasetStats

    from tunewheel_cli.datasets.statistics import Measured
    from tunewheel_cli.planning import Planned


@dataclass(frozen=True, slots=True)
class Shown:
    """All that a plan says."""

    rows: list[Planned]
    stats: DatasetStats
    source: str
    """Where the numbers of examples and tokens come from."""
    advice: Advice | None
    priced: str
    measured: Measured | None
    unplanned: str | None
    """Why the base model has no rows; None: it has."""
    cautions: tuple[str, ...]
    power: Power | None


def show_json(shown: Shown) -> None:
    measured, stats = shown.measured, shown.stats
    tokens = {"tokenizer": measured.tokenizer, "estimated_because": measured.reason} if measured else None
    print_json(
        {
            "advice": plain(shown.advice),
            "prices_as_of": shown.priced,
            "tokens": tokens,
            "reckoned_with": {
                "source": shown.source,
                "examples": stats.examples,
                "tokens_per_example": round(stats.mean),
                "answer_tokens": round(stats.learnt / stats.examples),
                "longest": stats.longest,
            },
            "plans": [row.as_json() for row in shown.rows],
            "recommended": _best_as_json(shown),
            "unplanned": shown.unplanned,
            "cautions": shown.cautions,
            "power": plain(shown.power),
        }
    )


def _best_as_json(shown: Shown) -> dict[str, str] | None:
    if (best := recommended(shown.rows)) is None:
        return None
    row, reason = best
    return {
        "model": row.model, "method": row.plan.method.value, "device": row.plan.device, "reason": reason,
    }  # fmt: skip


def show(shown: Shown) -> None:
    from tunewheel_cli.power_tables import power_lines

    if advice := shown.advice:
        print(f"{advice.approach.value}: {advice.reason}\n{_CHECKED}\n")
    stats = shown.stats
    learnt = f"{stats.learnt / stats.examples:,.0f} of them to learn"
    print(
        f"Reckoned with {stats.examples:,} examples of {stats.mean:,.0f} tokens, {learnt}, "
        f"{stats.longest:,} in the longest: {shown.source}."
    )
    if shown.unplanned:
        print(f"No memory and no time: {shown.unplanned}.")
    if shown.rows:
        _show_rows(shown)
    if not advice:
        print("Whether to fine-tune at all: --knowledge-changes and --consistency decide together.")
    if shown.power:
        print("\n".join(("", *power_lines(shown.power))))
    for caution in shown.cautions:
        print(f"caution: {caution}", file=sys.stderr)


def _show_rows(shown: Shown) -> None:
    from tunewheel_cli.texts import print_table

    rows, measured = shown.rows, shown.measured
    heads = ("model", "size", "method", "device", "needs", "of", "batch", "tok/s", "time", "dollars", "")
    print_table(heads, map(_cells, rows))
    print(
        "\nGB at the peak; * activations are recomputed. The speeds of GPUs are fitted to published runs of "
        "other trainers, of which the ranges hold four of five; this code was not measured on one. The time "
        "includes the download of the base, loading and checkpoints. Prices are assumed as of "
        f"{shown.priced}; --devices FILE gives yours."
    )
    if best := recommended(rows):
        row, reason = best
        print(f"Recommended: {row.model}, {row.plan.method.value} on {row.plan.device}: {reason}.")
    for said in dict.fromkeys(_validation(row) for row in rows if row.plan.validation):
        print(said)
    whole = {_serving(row) for row in rows if not row.plan.method.traits.adapter}
    if len(whole) == 1:  # only if the plan is for a single model
        print(*whole)
    if measured and measured.tokenizer:
        print(f"The examples are counted in tokens of {measured.tokenizer}.")
    elif measured:
        print(f"The examples are estimated at four characters a token: {measured.reason}.")
    if corrected := sum(row.plan.calibrated_by > 0 for row in rows):
        print(f"{corrected} of {len(rows)} plans are corrected by what earlier runs took.")


_CHECKED = (
    "Where the spec has `retrieval:`, the scorecard of each run holds this against what was measured of base "
    "and tuned model, with passages and without: tunewheel run scorecard RUN."
)


def _validation(row: Planned) -> str:
    validation = row.plan.validation
    assert validation is not None
    return (
        f"{row.plan.method.value}: {validation.examples} examples are held back to validate on, every "
        f"{validation.every_steps} steps: {validation.share:.1%} of training, within the time."
    )


def _serving(row: Planned) -> str:
    return (
        f"full: each version takes tunewheel-engine {4 * row.parameters / 1e9:.1f} GB of weights in float32, "
        "and a cache, beside the base; vLLM and TGI take an engine for each version."
    )


def _cells(row: Planned) -> list[str]:
    plan = row.plan
    cost = [_range(plan.tokens_per_second, ",.0f"), duration(plan.hours)] if plan.fits else ["", ""]
    dollars = _range(plan.dollars, ".2f") if plan.fits and plan.dollars else ""
    micro = f"{plan.micro_batch_size}{'*' if plan.gradient_checkpointing else ''}"
    return [
        row.model.rpartition("/")[2], f"{row.parameters / 1e9:.2f}B", plan.method.value, plan.device,
        f"{plan.peak_bytes / 1e9:.1f}", f"{plan.available_bytes / 1e9:.0f}", micro, *cost,
        dollars, plan.advice.rpartition(": ")[2],
    ]  # fmt: skip


def _range(interval: Interval, form: str) -> str:
    return f"{interval.low:{form}}-{interval.high:{form}}"

"""Says how likely a verdict is on some held-out rows, and what would make it likelier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewheel_contracts.api.datasets import Chances as ToldChances
    from tunewheel_contracts.api.datasets import Power as ToldPower
    from tunewheel_contracts.formats.scorecard import Scorecard
    from tunewheel_contracts.formats.spec import ProjectSpec
    from tunewheel_verdicts.power import Chances, Power

UNDECIDED = "Undecided is no end: such a model is tried in shadow, with a budget (rollout.undecided)."


def find_power(
    spec: ProjectSpec,
    sizes: Sequence[int] | None = None,
    *,
    card: Scorecard | None = None,
    silent: bool = False,
) -> Power:
    """Simulate verdicts by the spec's criteria. ``sizes``: the held-out rows of each customer; None: those
    of ``card``, or else of the smallest version that the spec allows. ``card``: the project's last scorecard,
    for the figures of base and champion; without one they are assumed."""
    import sys

    from rich.console import Console
    from tunewheel_verdicts.power import expected_by, power_of, sizes_in, sizes_of

    rows = max(1, int(spec.dataset.min_examples * spec.dataset.holdout_fraction))
    shown = not silent and sys.stderr.isatty()
    with Console(stderr=True).status("simulating verdicts …") if shown else nullcontext():
        if sizes is None:
            sizes = sizes_in(card) if card is not None and card.findings else sizes_of(rows)
        return power_of(spec, sizes, expected_by(card) if card is not None else {})


def power_as_json(power: Power) -> dict[str, Any]:
    """Return ``power`` in the form in which the control API tells it."""
    return {
        "rows": power.rows,
        "customers": power.customers,
        "assumed": power.assumptions,
        "chances": [asdict(one) for one in power.chances],
        "remedies": [{"change": one.change, "lines": one.lines} for one in power.remedies],
    }


def power_lines(power: Power | ToldPower) -> Iterator[str]:
    """Yield the chances, and the changes that would make them good enough."""
    yield f"Criteria together, on {power.rows} held-out rows of {power.customers} customers:"
    yield from chances_lines(power.chances)
    assumed = getattr(power, "assumed", None) or getattr(power, "assumptions", ())
    if assumed:
        yield f"Assumed: {'; '.join(assumed)}."
    if power.remedies:
        yield "For a model .10 better to pass in four of five cases, write one of these into project.yaml:"
    for remedy in power.remedies:
        yield f"  # {remedy.change}"
        yield from (f"  {line}" for line in remedy.lines)


def chances_lines(chances: Sequence[Chances] | Sequence[ToldChances]) -> Iterator[str]:
    """Yield a line for each model, and where undecided ones go."""
    yield f"  {'a model that is':32} {'met':>5} {'undecided':>10} {'missed':>7}"
    for one in chances:
        name = f"{one.gain:.2f} better than the champion" if one.gain else "equal to the champion"
        name = "the first, without a champion" if one.gain is None else name
        yield f"  {name:32} {one.met:5.2f} {one.undecided:10.2f} {one.missed:7.2f}"
    if any(one.undecided >= 0.05 for one in chances):
        yield UNDECIDED


def power_cautions(power: Power) -> tuple[str, ...]:
    """Return a warning if hardly any good model meets the criteria."""
    from tunewheel_verdicts.power import cautions_of

    return cautions_of(power.rows, power.chances[-1].met, [one.change for one in power.remedies])

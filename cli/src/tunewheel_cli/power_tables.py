"""Says how likely a verdict is on some held-out rows, and what would make it likelier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunewheel_contracts.api.datasets import Chances, Power
    from tunewheel_contracts.formats.scorecard import Scorecard
    from tunewheel_contracts.formats.spec import ProjectSpec

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
    from tunewheel_verdicts.power import expected_by, power_of, sizes_for

    shown = not silent and sys.stderr.isatty()
    with Console(stderr=True).status("simulating verdicts …") if shown else nullcontext():
        of_card = expected_by(card) if card is not None else {}
        return power_of(spec, sizes_for(spec, card) if sizes is None else sizes, of_card)


def power_lines(power: Power) -> Iterator[str]:
    """Yield the chances, and the changes that would make them good enough."""
    yield f"Criteria together, on {power.rows} held-out rows of {power.customers} customers:"
    yield from chances_lines(power.chances)
    if power.assumed:
        yield f"Assumed: {'; '.join(power.assumed)}."
    if power.remedies:
        yield "For a model .10 better to pass in four of five cases, write one of these into project.yaml:"
    for remedy in power.remedies:
        yield f"  # {remedy.change}"
        yield from (f"  {line}" for line in remedy.lines)


def chances_lines(chances: Sequence[Chances]) -> Iterator[str]:
    """Yield a line for each model, and where undecided ones go."""
    yield f"  {'a model that is':32} {'met':>5} {'undecided':>10} {'missed':>7}"
    for one in chances:
        name = f"{one.gain:.2f} better than the champion" if one.gain else "equal to the champion"
        name = "the first, without a champion" if one.gain is None else name
        yield f"  {name:32} {one.met:5.2f} {one.undecided:10.2f} {one.missed:7.2f}"
    if any(one.undecided >= 0.05 for one in chances):
        yield UNDECIDED

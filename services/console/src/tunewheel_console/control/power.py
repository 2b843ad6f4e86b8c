"""How probable a verdict by a spec's criteria is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tunewheel_contracts.api.datasets import Chances, Power, Remedy
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_contracts.formats.spec import ProjectSpec


async def find_power(
    spec: ProjectSpec, sizes: Sequence[int] | None = None, *, card: Scorecard | None = None
) -> Power:
    """Simulate verdicts by the spec's criteria, in a thread.

    Args:
        sizes: the number of held-out rows of each customer; None: those of ``card``, or else of the smallest
            version that the spec allows.
        card: a scorecard of the project, for the figures of base and champion; None: they are assumed.
    """
    from tunewheel_verdicts.power import expected_by, power_of, sizes_in, sizes_of

    if sizes is None and card is not None and card.findings:
        sizes = sizes_in(card)
    elif sizes is None:
        sizes = sizes_of(max(1, int(spec.dataset.min_examples * spec.dataset.holdout_fraction)))
    expected = expected_by(card) if card is not None else {}
    found = await asyncio.to_thread(power_of, spec, sizes, expected)
    return Power(
        rows=found.rows,
        customers=found.customers,
        assumed=found.assumptions,
        chances=tuple(
            Chances(gain=one.gain, met=one.met, undecided=one.undecided, missed=one.missed)
            for one in found.chances
        ),
        remedies=tuple(Remedy(change=one.change, lines=tuple(one.lines)) for one in found.remedies),
    )

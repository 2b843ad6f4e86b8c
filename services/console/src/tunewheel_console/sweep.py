"""One sweep, folded from its events. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.training import SweepProgressed, SweepRequested
from tunewheel_contracts.formats.sweep import SweepState

OF_SWEEPS = "sweep-"
"""Ids of sweeps begin with it, and those of runs do not."""


@dataclass
class Sweep:
    """What was asked for, and how far it is. One of both is known at least."""

    asked: Envelope[SweepRequested] | None = None
    latest: Envelope[SweepProgressed] | None = None

    @property
    def ended(self) -> str | None:
        """How it ended; None: it waits or is trained."""
        over = self.latest is not None and self.latest.data.state is not SweepState.TRAINING
        return self.latest.data.state.value if self.latest and over else None

    def progress(self, event: Envelope[SweepProgressed]) -> None:
        """Keep the event that tells most, in whatever order they are read."""
        if self.latest is None or _order(event.data) > _order(self.latest.data):
            self.latest = event


def _order(data: SweepProgressed) -> tuple[bool, int]:
    return data.state is not SweepState.TRAINING, data.measured

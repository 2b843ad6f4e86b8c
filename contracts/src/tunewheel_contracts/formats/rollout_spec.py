"""How a candidate is tried before it answers everything."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import Fraction, Percent, PositiveInt, Strict


class StagePolicy(Strict):
    """How much traffic a stage must see before it is judged."""

    min_requests: PositiveInt = 20
    """Candidate and champion each answer so many before the stage is judged."""
    max_invalid_increase: Fraction = 0.05
    """Largest tolerated rise of the invalid-output rate over the champion's."""
    max_error_rate: Fraction = 0.05
    """Largest tolerated share of the candidate's requests that fail."""


class ShadowPolicy(StagePolicy):
    enabled: bool = False
    """Show a candidate copies of the requests before it answers any; the first model too, beside the bare
    base."""
    percent: Annotated[Percent, Field(exclude_if=lambda percent: percent == 100)] = 100
    """Of the answered requests, those that are copied."""


class CanaryPolicy(StagePolicy):
    enabled: bool = True
    percent: Percent = 20
    """Of the requests, those that the canary answers."""


class RolloutSpec(Strict):
    """Stages a passed candidate goes through. Without a champion it goes straight to production, unless
    `shadow` is enabled: then it goes through them beside the bare base."""

    shadow: ShadowPolicy = ShadowPolicy()
    canary: CanaryPolicy = CanaryPolicy()

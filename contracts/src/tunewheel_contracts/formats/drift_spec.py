"""What counts as drift, and what follows from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import Strict


class DriftSpec(Strict):
    enabled: bool = True
    window: Annotated[int, Field(ge=10)] = 100
    """Completions per window."""
    p_value: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """A detector speaks where it finds a smaller one; where nothing changed, in that share of windows."""
    detectors: tuple[Literal["input", "format", "feedback"], ...] = ("input", "format", "feedback")
    cooldown_completions: Annotated[int, Field(ge=0)] = 100
    """One shift is one alarm: after a detection the same detector speaks again only once so many completions
    in a row (ratings, for ``feedback``), and at least three windows of them, showed no drift."""
    rebuild: bool = True
    """Build a new dataset version after drift, unless one is being built already."""

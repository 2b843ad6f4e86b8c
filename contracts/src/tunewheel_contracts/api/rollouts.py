"""Verdicts on shadow and canary stages."""

from __future__ import annotations

from tunewheel_contracts.events.production import RolloutBound
from tunewheel_contracts.fields import Frozen, Timestamp


class Rollout(Frozen):
    event_id: str
    project: str
    model_id: str
    stage: str
    """``shadow`` or ``canary``."""
    verdict: str
    """``passed`` or ``failed``."""
    at: Timestamp
    requests: int
    reasons: tuple[str, ...] = ()
    decided_by: str | None = None
    """``bounds``, ``incidents``, ``deadline``, ``no gain`` or ``guard``, as in ``rollout.judged``."""
    generation: int
    candidate: dict[str, float] = {}
    champion: dict[str, float] = {}
    bounds: tuple[RolloutBound, ...] = ()

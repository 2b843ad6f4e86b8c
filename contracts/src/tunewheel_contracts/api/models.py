"""Registered models, and the verdicts on their shadow and canary stages."""

from __future__ import annotations

from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.production import RolloutBound
from tunewheel_contracts.fields import Frozen, Timestamp
from tunewheel_contracts.formats.run import AdapterRef, BaseModelFacts, BaseModelRef
from tunewheel_contracts.formats.scorecard import Contestant, CriterionCheck


class HistoryStep(Frozen):
    """One step of a model's stages."""

    event_id: str
    stage: Stage
    reason: str
    cause: str | None = None
    """The id of the event that decided the step."""
    at: Timestamp | None = None


class RegisteredModel(Frozen):
    """A model and its stage, as the registry also tells it."""

    model_id: str
    project: str
    kind: str
    """``base``, ``adapter`` or ``full``."""
    stage: Stage
    base: BaseModelRef
    base_facts: BaseModelFacts | None = None
    run_id: str | None = None
    dataset_id: str | None = None


class ModelSummary(RegisteredModel):
    registered_at: Timestamp
    since: Timestamp
    """Since when the model is in its stage."""
    role: str | None = None
    """``production``, ``canary`` or ``shadow``; None: no route has the model."""
    percent: int | None = None
    """The share of requests that the model answers, or of which it gets a copy."""
    pinned: bool = False


class ModelDetail(ModelSummary):
    adapter: AdapterRef | None = None
    history: tuple[HistoryStep, ...] = ()
    """The steps, oldest first."""
    evaluation_id: str | None = None
    """The last evaluation with a verdict."""
    contestants: tuple[Contestant, ...] = ()
    """Its figures, and those that it was compared with. Empty: there are none, or they are withheld because a
    review of the project's answers is open."""
    checks: tuple[CriterionCheck, ...] = ()
    withheld: bool = False


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

"""The life of a model, event-sourced: ``apply`` folds what happened into the state of a project.

    registered ─▶ evaluated ─▶ shadow ─▶ canary ─▶ production ◀─▶ retired
        │             └───────────┴─────────┴──────────▲            │
        └─▶ rejected ◀──────────────────────────────────────────────┘
                               shadow, canary, production ─▶ rolled_back

``apply`` knows an event again by its id, so a log that holds one twice folds to the same state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRegistered, ModelRolledback, Stage
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.identity import content_id

LifecycleEvent = ModelRegistered | ModelPromoted | ModelRolledback

CANDIDATE_STAGES = (Stage.SHADOW, Stage.CANARY)
LEGAL: Mapping[Stage, frozenset[Stage]] = MappingProxyType(
    {
        Stage.REGISTERED: frozenset({Stage.EVALUATED, Stage.REJECTED}),
        Stage.EVALUATED: frozenset({Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION, Stage.RETIRED}),
        Stage.SHADOW: frozenset({Stage.CANARY, Stage.PRODUCTION, Stage.RETIRED, Stage.ROLLED_BACK}),
        Stage.CANARY: frozenset({Stage.PRODUCTION, Stage.RETIRED, Stage.ROLLED_BACK}),
        Stage.PRODUCTION: frozenset({Stage.RETIRED, Stage.ROLLED_BACK}),
        # a champion of before comes back, or is rejected and never will
        Stage.RETIRED: frozenset({Stage.PRODUCTION, Stage.REJECTED}),
        Stage.REJECTED: frozenset(),
        Stage.ROLLED_BACK: frozenset(),
    }
)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to a model. ``cause`` is the id of the event that decided it."""

    event_id: str
    stage: Stage
    reason: str
    cause: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Model:
    registration: ModelRegistered
    stage: Stage
    history: tuple[Step, ...]
    replaces: str | None = None
    """The champion it took over from on reaching production."""
    bundle: Bundle | None = None
    """What was judged of it, by its newest verdict; None: nobody said."""

    @property
    def model_id(self) -> str:
        return self.registration.model_id

    def was_decided_by(self, cause: str) -> bool:
        return any(step.cause == cause for step in self.history)

    def has_been(self, stage: Stage) -> bool:
        return any(step.stage is stage for step in self.history)


@dataclass(frozen=True, slots=True)
class State:
    """Every model of one project, in the order of registration."""

    project: str
    models: Mapping[str, Model] = field(default_factory=dict[str, Model])

    @property
    def generation(self) -> int:
        """Count of lifecycle events behind this state."""
        return sum(len(model.history) for model in self.models.values())

    @property
    def champion(self) -> Model | None:
        """The model in production. While a replaced one has not retired yet, the one that replaced it."""
        replaced = {m.replaces for m in self.models.values() if m.stage is Stage.PRODUCTION}
        serving = (model for model in self.models.values() if model.stage is Stage.PRODUCTION)
        return next((model for model in serving if model.model_id not in replaced), None)

    @property
    def candidates(self) -> tuple[Model, ...]:
        """Models that see traffic on trial."""
        return tuple(model for model in self.models.values() if model.stage in CANDIDATE_STAGES)

    def newer_in_traffic(self, model: Model) -> Model | None:
        """Return a version that was registered after ``model`` and is on trial or in production."""
        later = list(self.models).index(model.model_id) + 1
        in_traffic = (*CANDIDATE_STAGES, Stage.PRODUCTION)
        return next((m for m in list(self.models.values())[later:] if m.stage in in_traffic), None)

    @property
    def predecessors(self) -> tuple[Model, ...]:
        """The champions of before, which can serve again: those that retired from production, the one
        registered last first. No version takes over from one that was registered after it."""
        was_champion = (m for m in list(self.models.values())[::-1] if m.has_been(Stage.PRODUCTION))
        return tuple(model for model in was_champion if model.stage is Stage.RETIRED)

    @property
    def predecessor(self) -> Model | None:
        """The champion of before, which takes over where the present one is rolled back."""
        return next(iter(self.predecessors), None)

    def in_stage(self, stage: Stage) -> Model | None:
        return next((model for model in self.models.values() if model.stage is stage), None)


def base_model_id(base: BaseModelRef) -> str:
    """Return the id under which a base model is registered: its name is no slug, so digits of its hash."""
    return content_id("base", base.model_dump(mode="json"), digits=12)


def known_model(state: State, model_id: str) -> Model:
    model = state.models.get(model_id)
    if model is None:
        raise InvalidEvent(
            field="model_id", reason=f"{model_id} is not registered in project {state.project}"
        )
    return model


def apply(
    state: State, event: LifecycleEvent, *, cause: str | None = None, at: datetime | None = None
) -> State:
    """Return the state after ``event``; the same state where it was applied before.

    Raises:
        InvalidEvent: an unknown model, another registration under a known id, or a transition that is not
            in ``LEGAL`` from where the model stands.
    """
    if isinstance(event, ModelRegistered):
        return _register(state, event, cause=cause, at=at)
    model = known_model(state, event.model_id)
    event_id = event.event_id()
    if any(step.event_id == event_id for step in model.history):
        return state
    to_stage = event.to_stage if isinstance(event, ModelPromoted) else Stage.ROLLED_BACK
    _check_transition(model, event.from_stage, to_stage)
    step = Step(event_id=event_id, stage=to_stage, reason=event.reason, cause=event.cause, at=at)
    moved = replace(model, stage=to_stage, history=(*model.history, step))
    if isinstance(event, ModelPromoted) and to_stage is Stage.PRODUCTION:
        moved = replace(moved, replaces=event.replaces)
    if isinstance(event, ModelPromoted) and event.bundle is not None:
        moved = replace(moved, bundle=event.bundle)
    return _with(state, moved)


def _register(state: State, event: ModelRegistered, *, cause: str | None, at: datetime | None) -> State:
    known = state.models.get(event.model_id)
    if known is not None:
        if known.registration != event:
            raise InvalidEvent(
                field="model_id", reason=f"{event.model_id} is registered already, with other content"
            )
        return state
    step = Step(event_id=event.event_id(), stage=Stage.REGISTERED, reason="registered", cause=cause, at=at)
    return _with(state, Model(registration=event, stage=Stage.REGISTERED, history=(step,)))


def _check_transition(model: Model, from_stage: Stage, to_stage: Stage) -> None:
    if model.registration.kind == "base":
        raise InvalidEvent(field="model_id", reason=f"{model.model_id} is a base model; it has no stages")
    if model.stage is not from_stage:
        reason = f"is {from_stage.value}, but {model.model_id} is in {model.stage.value}"
        raise InvalidEvent(field="from_stage", reason=reason)
    if to_stage not in LEGAL[from_stage]:
        raise InvalidEvent(
            field="to_stage", reason=f"{to_stage.value} cannot follow {from_stage.value} ({model.model_id})"
        )


def _with(state: State, model: Model) -> State:
    return replace(state, models={**state.models, model.model_id: model})

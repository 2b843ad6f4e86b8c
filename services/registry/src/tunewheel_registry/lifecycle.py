"""The lifecycle of models, event-sourced: ``apply`` folds events into the state of a project.

    registered ─▶ evaluated ─▶ shadow ─▶ canary ─▶ production ◀─▶ retired
        │             └───────────┴─────────┴──────────▲            │
        └─▶ rejected ◀──────────────────────────────────────────────┘
                               shadow, canary, production ─▶ rolled_back

The diagram shows the automatic steps. A command may also bring a version back from ``rolled_back``, or
promote it to production without an evaluation. ``apply`` recognises an event by its id, so an event that is
on the log twice is applied once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.evaluation import EvalRequested
from tunewheel_contracts.events.lifecycle import (
    CommandRefused,
    ModelPinned,
    ModelPromoted,
    ModelRegistered,
    ModelRolledback,
    Stage,
)
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.identity import content_id

LifecycleEvent = ModelRegistered | ModelPromoted | ModelRolledback | ModelPinned
"""Events that change a model. Each increases the state's generation by one."""
Decision = LifecycleEvent | CommandRefused | EvalRequested
"""Events that the registry decides. Refusals and requests are remembered in the state, but change no
model."""

CANDIDATE_STAGES = (Stage.SHADOW, Stage.CANARY)
LEGAL: Mapping[Stage, frozenset[Stage]] = MappingProxyType(
    {
        Stage.REGISTERED: frozenset({Stage.EVALUATED, Stage.REJECTED, Stage.PRODUCTION}),
        Stage.EVALUATED: frozenset(
            {Stage.EVALUATED, *CANDIDATE_STAGES, Stage.PRODUCTION, Stage.RETIRED, Stage.REJECTED}
        ),
        Stage.SHADOW: frozenset({*CANDIDATE_STAGES, Stage.PRODUCTION, Stage.RETIRED, Stage.ROLLED_BACK}),
        Stage.CANARY: frozenset({Stage.CANARY, Stage.PRODUCTION, Stage.RETIRED, Stage.ROLLED_BACK}),
        Stage.PRODUCTION: frozenset({Stage.RETIRED, Stage.ROLLED_BACK}),
        # A former champion may come back, or be rejected for good.
        Stage.RETIRED: frozenset({Stage.PRODUCTION, Stage.REJECTED}),
        # A person may overrule a rejection by metrics, or confirm it.
        Stage.REJECTED: frozenset({Stage.PRODUCTION, Stage.REJECTED}),
        Stage.ROLLED_BACK: frozenset({Stage.PRODUCTION, Stage.REJECTED}),
    }
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step in the life of a model. ``cause`` is the id of the event that decided it."""

    event_id: str
    stage: Stage
    reason: str
    cause: str | None = None
    at: datetime | None = None
    decided_by: str | None = None
    """``criteria``, ``review``, ``rollout`` or ``command``."""


@dataclass(frozen=True, slots=True)
class Model:
    registration: ModelRegistered
    stage: Stage
    history: tuple[Step, ...]
    replaces: str | None = None
    """The champion that the model replaced when it reached production."""
    bundle: Bundle | None = None
    """The bundle of the model's newest verdict; None: the verdict names none."""
    passed_by: str | None = None
    """Id of the newest verdict that the model passed."""
    beaten: frozenset[str] = frozenset()
    """The champions with which the model was compared in verdicts that it passed."""
    held_up_in: Stage | None = None
    """A stage that the model has completed but cannot leave yet: it passed its trial there, or its next
    verdict was undecided."""

    @property
    def model_id(self) -> str:
        return self.registration.model_id

    def was_decided_by(self, cause: str) -> bool:
        return any(step.cause == cause for step in self.history)

    def has_been(self, stage: Stage) -> bool:
        return any(step.stage is stage for step in self.history)

    @property
    def decided_by(self) -> str | None:
        return self.history[-1].decided_by

    @property
    def waits(self) -> bool:
        """Whether the model has completed its stage and waits to go on."""
        return self.stage is Stage.EVALUATED or self.held_up_in is self.stage

    @property
    def is_out_for_good(self) -> bool:
        """Whether a person rejected the model. A rejection without ``decided_by`` counts as a person's."""
        if self.stage is Stage.REJECTED:
            return self.decided_by != "criteria"
        return self.stage is Stage.ROLLED_BACK and self.decided_by in (None, "review")


@dataclass(frozen=True, slots=True)
class State:
    """The models of one project, in the order of registration."""

    project: str
    models: Mapping[str, Model] = field(default_factory=dict[str, Model])
    pins: tuple[ModelPinned, ...] = ()
    refused: frozenset[str] = frozenset()
    """Ids of the commands that were refused."""
    requested: frozenset[str] = frozenset()
    """Ids of the published ``eval.requested`` events."""

    @property
    def generation(self) -> int:
        """Number of lifecycle events that led to this state."""
        return len(self.pins) + sum(len(model.history) for model in self.models.values())

    @property
    def pinned(self) -> Model | None:
        """The model that is pinned in production; None: no model is."""
        if not self.pins or not self.pins[-1].pinned:
            return None
        return self.models.get(self.pins[-1].model_id)

    @property
    def stopped_to(self) -> Model | None:
        """The model that answers alone after the command ``stop``: the champion or a base. None: not
        stopped."""
        return self.pinned if self.pinned is not None and self.pins[-1].alone else None

    def was_decided_by(self, cause: str) -> bool:
        by_model = any(model.was_decided_by(cause) for model in self.models.values())
        return by_model or any(pin.cause == cause for pin in self.pins)

    @property
    def champion(self) -> Model | None:
        """The model in production. While two are, because the old one is not retired yet, the new one."""
        replaced = {m.replaces for m in self.models.values() if m.stage is Stage.PRODUCTION}
        serving = (model for model in self.models.values() if model.stage is Stage.PRODUCTION)
        return next((model for model in serving if model.model_id not in replaced), None)

    @property
    def base(self) -> Model | None:
        """The base model that answers where no other model does: the champion's base, or else the base that
        was registered last."""
        bases = [model for model in self.models.values() if model.registration.kind == "base"]
        champion = self.champion
        if champion is None:
            return bases[-1] if bases else None
        return next((b for b in bases if b.registration.base == champion.registration.base), None)

    @property
    def candidates(self) -> tuple[Model, ...]:
        """The models in shadow or canary."""
        return tuple(model for model in self.models.values() if model.stage in CANDIDATE_STAGES)

    @property
    def trial(self) -> Model | None:
        """The candidate whose trial runs; None: there is no candidate, or it completed its trial and
        waits."""
        return next((model for model in self.candidates if not model.waits), None)

    def newer_in_traffic(self, model: Model) -> Model | None:
        """Return a version that was registered after ``model`` and is on trial or in production."""
        later = list(self.models).index(model.model_id) + 1
        in_traffic = (*CANDIDATE_STAGES, Stage.PRODUCTION)
        return next((m for m in list(self.models.values())[later:] if m.stage in in_traffic), None)

    @property
    def predecessors(self) -> tuple[Model, ...]:
        """The former champions that can serve again, newest registration first. A champion that was retired
        by command is not among them. A version never replaces one that was registered after it."""
        was_champion = (m for m in list(self.models.values())[::-1] if m.has_been(Stage.PRODUCTION))
        return tuple(m for m in was_champion if m.stage is Stage.RETIRED and m.decided_by != "command")

    @property
    def predecessor(self) -> Model | None:
        """The former champion that takes over if the present one is rolled back."""
        return next(iter(self.predecessors), None)

    def in_stage(self, stage: Stage) -> Model | None:
        return next((model for model in self.models.values() if model.stage is stage), None)


def base_model_id(base: BaseModelRef) -> str:
    """Return the id under which a base model is registered. It is made of a hash, since names of base models
    are no valid ids."""
    return content_id("base", base.model_dump(mode="json"), digits=12)


def known_model(state: State, model_id: str) -> Model:
    model = state.models.get(model_id)
    if model is None:
        raise InvalidEvent(
            field="model_id", reason=f"{model_id} is not registered in project {state.project}"
        )
    return model


def apply(state: State, event: Decision, *, cause: str | None = None, at: datetime | None = None) -> State:
    """Return the state after ``event``; the same object if the event was applied before.

    Raises:
        InvalidEvent: the model is not registered, is registered with other content, or may not make the
            transition (see ``LEGAL``).
    """
    match event:
        case ModelRegistered():
            return _register(state, event, cause=cause, at=at)
        case ModelPromoted() | ModelRolledback():
            return _move(state, event, at=at)
        case ModelPinned():
            known_model(state, event.model_id)
            known = any(pin.event_id() == event.event_id() for pin in state.pins)
            return state if known else replace(state, pins=(*state.pins, event))
        case CommandRefused():
            return replace(state, refused=state.refused | {event.command_id})
        case EvalRequested():
            return replace(state, requested=state.requested | {event.event_id()})


def _move(state: State, event: ModelPromoted | ModelRolledback, *, at: datetime | None) -> State:
    model = known_model(state, event.model_id)
    event_id = event.event_id()
    if any(step.event_id == event_id for step in model.history):
        return state
    to_stage = event.to_stage if isinstance(event, ModelPromoted) else Stage.ROLLED_BACK
    _check_transition(model, event.from_stage, to_stage)
    step = Step(
        event_id=event_id, stage=to_stage, reason=event.reason, cause=event.cause, at=at,
        decided_by=event.decided_by,
    )  # fmt: skip
    moved = replace(model, stage=to_stage, history=(*model.history, step))
    if isinstance(event, ModelPromoted):
        moved = _learn(moved, event)
        replaced = state.models.get(event.replaces or "")
        if replaced is not None and replaced.replaces == model.model_id:  # Each replaced the other once.
            state = _with(state, replace(replaced, replaces=None))
    return _with(state, moved)


def _learn(model: Model, event: ModelPromoted) -> Model:
    """Note the other fields of ``event``: bundle, verdict, beaten champion, completed trial."""
    if event.to_stage is Stage.PRODUCTION:
        return replace(model, replaces=event.replaces)
    if event.held_up:
        return replace(model, held_up_in=event.to_stage)
    stays = event.from_stage is event.to_stage and event.to_stage in CANDIDATE_STAGES
    if event.to_stage is Stage.EVALUATED or stays:
        beaten = model.beaten | ({event.against} if event.against else set())
        bundle = event.bundle or model.bundle
        return replace(model, passed_by=event.cause, beaten=frozenset(beaten), bundle=bundle)
    return model


def _register(state: State, event: ModelRegistered, *, cause: str | None, at: datetime | None) -> State:
    known = state.models.get(event.model_id)
    if known is not None:
        if known.registration != event.model_copy(update={"generation": known.registration.generation}):
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

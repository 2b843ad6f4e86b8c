"""The lifecycle of models, event-sourced: ``apply`` folds events into the state of a project.

    registered ─▶ evaluated ─▶ shadow ─▶ canary ─▶ production ◀─▶ retired
        │  │          ▲└──────────┴─────────┴──────────▲            │
        │  └─▶ undecided ─▶ shadow                                  │
        └─▶ rejected ◀──────────────────────────────────────────────┘
                               shadow, canary, production ─▶ rolled_back

The diagram shows the automatic steps. From ``undecided`` a model may also become rejected or retired, and an
``evaluated`` model becomes ``undecided`` if that is its verdict against another champion. A command may also
bring a version back from ``rolled_back``, or promote it to production without an evaluation. ``apply``
recognises an event by its id, so an event that is on the log twice is applied once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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

from tunewheel_registry.budget import Account
from tunewheel_registry.state import CANDIDATE_STAGES, JUDGED_STAGES, Model, State, Step, known_model, written

LifecycleEvent = ModelRegistered | ModelPromoted | ModelRolledback | ModelPinned
"""Events that change a model. Each increases the state's generation by one."""
Decision = LifecycleEvent | CommandRefused | EvalRequested
"""Events that the registry decides. Refusals and requests are remembered in the state, but change no
model."""

LEGAL: Mapping[Stage, frozenset[Stage]] = MappingProxyType(
    {
        Stage.REGISTERED: frozenset({*JUDGED_STAGES, Stage.REJECTED, Stage.PRODUCTION}),
        **dict.fromkeys(
            JUDGED_STAGES,
            frozenset({*JUDGED_STAGES, *CANDIDATE_STAGES, Stage.PRODUCTION, Stage.RETIRED, Stage.REJECTED}),
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


def apply(state: State, event: Decision, *, cause: str | None = None, at: datetime | None = None) -> State:
    """Return the state after ``event``; the same object if the event was applied before. Raises InvalidEvent:
    the model is not registered, is registered with other content, or may not make the transition (see
    ``LEGAL``)."""
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
    to_stage = event.stage if isinstance(event, ModelPromoted) else Stage.ROLLED_BACK
    _check_transition(model, event.from_stage, to_stage)
    step = Step(
        event_id=event_id, stage=to_stage, reason=event.reason, cause=event.cause, at=at,
        decided_by=event.decided_by,
    )  # fmt: skip
    moved = replace(model, stage=to_stage, history=(*model.history, step))
    if isinstance(event, ModelPromoted):
        moved = _learn(state, moved, event)
        replaced = state.models.get(event.replaces or "")
        if replaced is not None and replaced.replaces == model.model_id:  # Each replaced the other once.
            state = _with(state, replace(replaced, replaces=None))
    return _with(state, moved)


def _learn(state: State, model: Model, event: ModelPromoted) -> Model:
    """Note the other fields of ``event``: bundle, verdict, beaten champion, completed trial, gain."""
    if event.to_stage is Stage.PRODUCTION:
        return _crown(state, model, event)
    champion = event.against or (state.champion.model_id if state.champion else None)
    if event.gain is not None and champion is not None:
        model = replace(model, gains={**model.gains, champion: event.gain})
    if event.undecided:
        bundle = event.bundle or model.bundle
        model = replace(model, judged_by=event.cause, bundle=bundle, held_up_in=None)
        return replace(model, against=event.against, to_show=event.to_show)
    if event.held_up:
        return replace(model, held_up_in=event.to_stage)
    stays = event.from_stage is event.to_stage and event.to_stage in CANDIDATE_STAGES
    if event.to_stage is Stage.EVALUATED or stays:
        beaten = model.beaten | ({event.against} if event.against else set())
        bundle = event.bundle or model.bundle
        model = replace(model, judged_by=event.cause, beaten=frozenset(beaten), bundle=bundle)
        return replace(model, to_show=None)
    if event.to_stage in CANDIDATE_STAGES:  # beside a champion that it has beaten it need not show more
        return replace(model, to_show=event.to_show)
    return model


def _crown(state: State, model: Model, event: ModelPromoted) -> Model:
    """Note what the model replaces in production. A model that comes back keeps its account."""
    before, replaced = model.history[:-1], state.models.get(event.replaces or "")
    account = replaced.account.after(event.gain) if replaced is not None else Account()
    if any(step.stage is Stage.PRODUCTION for step in before):
        account = model.account
    return replace(model, replaces=event.replaces, account=account)


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
    if written(model.stage) is not from_stage:
        reason = f"is {from_stage.value}, but {model.model_id} is in {model.stage.value}"
        raise InvalidEvent(field="from_stage", reason=reason)
    if to_stage not in LEGAL[model.stage]:
        raise InvalidEvent(
            field="to_stage", reason=f"{to_stage.value} cannot follow {model.stage.value} ({model.model_id})"
        )


def _with(state: State, model: Model) -> State:
    return replace(state, models={**state.models, model.model_id: model})

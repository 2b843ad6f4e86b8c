"""Carries out people's commands. Each command is carried out or refused, with the reason, exactly once.

A command needs no verdict: a person may overrule metrics. Two limits remain. While a model is pinned in
production, no other model replaces it. A model that a person rejected never comes back.
"""

from __future__ import annotations

from collections.abc import Iterator

from tunewheel_contracts.events.lifecycle import CommandRefused, ModelCommanded, ModelPinned, Stage

from tunewheel_registry.lifecycle import Decision
from tunewheel_registry.state import CANDIDATE_STAGES, JUDGED_STAGES, Model, State
from tunewheel_registry.waiting import promotion, rollback

COMMAND = "command"
STOP = "stop"
ACTIONS = ("promote", "rollback", "pin", "unpin", "retire", "reject", STOP)
IN_TRAFFIC = (*CANDIDATE_STAGES, Stage.PRODUCTION)
JUDGED = (Stage.EVALUATED, *CANDIDATE_STAGES, Stage.RETIRED)
"""Stages of a model that passed its evaluation. From these a command may promote it without force."""


def is_settled(state: State, command: ModelCommanded) -> bool:
    """Return whether ``command`` was refused, or carried out at least in part."""
    command_id = command.event_id()
    return command_id in state.refused or state.was_decided_by(command_id)


def refused(command: ModelCommanded, field: str, reason: str) -> CommandRefused:
    return CommandRefused(
        project=command.project,
        command_id=command.event_id(),
        model_id=command.model_id,
        action=command.action,
        field=field,
        reason=reason,
    )


def carry_out(state: State, command: ModelCommanded) -> Iterator[Decision]:
    """Yield the next step of ``command``, or its refusal; nothing if the command is done."""
    if command.event_id() in state.refused:
        return
    model = _meant(state, command)
    if not state.was_decided_by(command.event_id()):
        objection = _objection(state, model, command)
        if objection is not None:
            yield refused(command, *objection)
            return
    if model is not None:
        yield from _step(state, model, command)


def _meant(state: State, command: ModelCommanded) -> Model | None:
    """Return the model that a command names. The command ``stop`` may say "champion" or "base" in place of an
    id, so that a person in a hurry need not look it up."""
    if command.action == STOP and command.model_id == "champion":
        return state.champion
    if command.action == STOP and command.model_id == "base":
        return state.base
    return state.models.get(command.model_id)


Objection = tuple[str, str]
"""(field, reason)."""


def _objection(state: State, model: Model | None, command: ModelCommanded) -> Objection | None:
    if command.action not in ACTIONS:
        return "action", f"{command.action!r} is unknown; use one of {', '.join(ACTIONS)}"
    if model is None and command.action == STOP and command.model_id in ("champion", "base"):
        return "model_id", f"there is no {command.model_id} in project {state.project} now"
    if model is None:
        return "model_id", f"{command.model_id} is not registered in project {state.project}"
    if model.registration.kind == "base" and command.action not in (STOP, "unpin"):
        return "model_id", f"{model.model_id} is a base model: it only answers where no other model does"
    if command.generation not in (None, state.generation):
        return "generation", (
            f"was {command.generation} when the command was given and is {state.generation} now: another "
            "change came first; look at the models again, then repeat the command"
        )
    reason = _against(state, model, command)
    return None if reason is None else ("model_id", reason)


def _against_promotion(state: State, model: Model, command: ModelCommanded) -> str | None:
    pinned = state.pinned
    if model.stage is Stage.PRODUCTION:
        return f"{model.model_id} is in production already"
    if model.is_out_for_good:
        return f"{model.model_id} was rejected; that is final for a version"
    if pinned is not None:
        return f"{pinned.model_id} is pinned in production; unpin it first"
    fell_by_command = model.stage is Stage.ROLLED_BACK and model.decided_by == COMMAND
    if (model.stage not in JUDGED or model.is_doubted) and not fell_by_command and not command.force:
        why = "was not judged yet" if model.stage is Stage.REGISTERED else f"is {model.stage.value}"
        return f"{model.model_id} {why}: {model.history[-1].reason}; to promote it anyway, use force"
    return None


def _against_pin(state: State, model: Model) -> str | None:
    stopped = state.stopped_to
    if stopped is not None:  # A pin would admit candidates again, which only unpin may do.
        return f"{stopped.model_id} answers alone; unpin it first, so that other models may answer again"
    if model.stage is not Stage.PRODUCTION:
        return f"{model.model_id} is {model.stage.value}; only a model in production can be pinned"
    return f"{model.model_id} is pinned already" if state.pinned == model else None


def _against(state: State, model: Model, command: ModelCommanded) -> str | None:
    """Return why the project and the model do not allow ``command`` now."""
    match command.action:
        case "promote":
            return _against_promotion(state, model, command)
        case "pin":
            return _against_pin(state, model)
        case "unpin":
            return None if state.pinned == model else f"{model.model_id} is not pinned"
        case "stop":
            if model.registration.kind != "base" and model != state.champion:
                return (
                    f"{model.model_id} is {model.stage.value}; stop can only leave the champion or the base"
                )
            return f"{model.model_id} answers alone already" if state.stopped_to == model else None
        case "reject":
            return f"{model.model_id} was rejected already" if model.is_out_for_good else None
        case "retire" if model.stage in JUDGED_STAGES:
            return None
        case _:
            if model.stage in IN_TRAFFIC:
                return None
            return f"{model.model_id} is {model.stage.value}, not in traffic"


def _step(state: State, model: Model, command: ModelCommanded) -> Iterator[Decision]:
    action, cause = command.action, command.event_id()
    if action in ("pin", "unpin", STOP):
        if not state.was_decided_by(cause):
            yield ModelPinned(
                project=state.project,
                model_id=model.model_id,
                pinned=action != "unpin",
                cause=cause,
                reason=command.reason,
                alone=action == STOP,
            )
    elif action == "reject" and model.stage not in IN_TRAFFIC:
        if not any(step.stage is Stage.REJECTED and step.cause == cause for step in model.history):
            yield promotion(state, model, Stage.REJECTED, cause, command.reason, decided_by=COMMAND)
    elif not model.was_decided_by(cause):
        if action in ("rollback", "reject"):
            yield rollback(state, model, cause, command.reason, COMMAND)
        else:
            stage = Stage.PRODUCTION if action == "promote" else Stage.RETIRED
            yield promotion(state, model, stage, cause, command.reason, decided_by=COMMAND)

"""Builds the events of a model's steps, and derives the steps that follow from the state alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunewheel_contracts.events.lifecycle import ModelPinned, ModelPromoted, ModelRolledback, Stage

from tunewheel_registry.lifecycle import Model, State


def promotion(
    state: State, model: Model, to_stage: Stage, cause: str, reason: str, **more: Any
) -> ModelPromoted:
    """Return the step of ``model`` to ``to_stage``; ``more`` are further fields of the event."""
    champion = state.champion if to_stage is Stage.PRODUCTION else None
    return ModelPromoted(
        project=state.project,
        model_id=model.model_id,
        from_stage=model.stage,
        to_stage=to_stage,
        replaces=champion.model_id if champion else None,
        cause=cause,
        reason=reason,
        **more,
    )


def rollback(state: State, model: Model, cause: str, reason: str, decided_by: str) -> ModelRolledback:
    """Return the step of ``model`` out of traffic."""
    serves = state.predecessor if model.stage is Stage.PRODUCTION else state.champion
    return ModelRolledback(
        project=state.project,
        model_id=model.model_id,
        from_stage=model.stage,
        restored=serves.model_id if serves else None,
        cause=cause,
        reason=reason,
        decided_by=decided_by,
    )


def unpinnings(state: State) -> Iterator[ModelPinned | ModelPromoted]:
    """End the pin of a model that has left production; if the model comes back later, it must not be pinned.

    A stop goes on: the model that takes over, the former champion or the base, answers alone from then on.
    """
    model = state.pinned
    if model is None or model.registration.kind == "base" or model.stage is Stage.PRODUCTION:
        return
    takes_over = None
    if state.stopped_to is not None:
        yield from restorations(state)
        takes_over = state.champion or state.base
    word = f"{model.model_id} is {model.stage.value} now"
    yield ModelPinned(
        project=state.project,
        model_id=(takes_over or model).model_id,
        pinned=takes_over is not None,
        cause=model.history[-1].cause or "",
        reason=f"{word}, and the stop goes on" if takes_over else word,
        alone=takes_over is not None,
    )


def restorations(state: State) -> Iterator[ModelPromoted]:
    """Bring the former champion back if the one in production was rolled back or rejected. Derived from the
    state alone, because a crash may have left this step undone."""
    predecessor = state.predecessor
    if state.champion is not None or predecessor is None:
        return
    fallen = [model for model in state.models.values() if _fell(model) and not _is_made_up_for(state, model)]
    if fallen:
        word = "retired" if fallen[-1].stage is Stage.RETIRED else "rolled back"
        reason = f"restored: {fallen[-1].model_id} was {word}"
        cause = fallen[-1].history[-1].cause or ""
        yield promotion(state, predecessor, Stage.PRODUCTION, cause, reason)


def _fell(model: Model) -> bool:
    """Return whether ``model`` left production without a successor."""
    retired = model.stage is Stage.RETIRED and model.decided_by == "command"
    return model.has_been(Stage.PRODUCTION) and (retired or model.stage is Stage.ROLLED_BACK)


def _is_made_up_for(state: State, fallen: Model) -> bool:
    cause = fallen.history[-1].cause
    steps = (step for model in state.models.values() for step in model.history)
    return any(step.cause == cause and step.stage is Stage.PRODUCTION for step in steps)


def retirements(state: State) -> Iterator[ModelPromoted]:
    """Retire the models that a production model has replaced. Derived from the state alone, as above."""
    for model in state.models.values():
        old = state.models.get(model.replaces or "")
        if old is not None and old.stage is model.stage is Stage.PRODUCTION:
            yield promotion(state, old, Stage.RETIRED, reign(model), f"replaced by {model.model_id}")


def reign(model: Model) -> str:
    """Return the id of the event that decided the model's newest step into production."""
    return next(step.cause for step in reversed(model.history) if step.stage is Stage.PRODUCTION) or ""

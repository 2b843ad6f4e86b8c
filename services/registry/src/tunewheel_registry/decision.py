"""What the registry decides when a run, a verdict or a rollout judgement arrives.

``decide`` derives one event at a time from the state alone and applies it before it looks for the next.
Whatever prefix of a decision reached the log before a crash, the redelivered trigger therefore yields
exactly the rest; a trigger that is wholly done yields nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRegistered, ModelRolledback, Stage
from tunewheel_contracts.events.production import RolloutJudged
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_contracts.formats.spec import RolloutSpec

from tunewheel_registry.lifecycle import (
    CANDIDATE_STAGES,
    LifecycleEvent,
    Model,
    State,
    apply,
    base_model_id,
    known_model,
)

Trigger = TrainCompleted | EvalPassed | EvalFailed | RolloutJudged


def decide(state: State, trigger: Envelope[Any], rollout: RolloutSpec) -> list[LifecycleEvent]:
    """Return the events that ``trigger`` (train.completed, eval.*, rollout.judged) still asks for.

    Raises:
        InvalidEvent: the trigger contradicts what is known of the model.
    """
    decided: list[LifecycleEvent] = []
    while (event := next(_wanted(state, trigger, rollout), None)) is not None:
        decided.append(event)
        state = apply(state, event)
    return decided


def has_begun(state: State, trigger: Envelope[EvalPassed | EvalFailed]) -> bool:
    """Tell whether something that happened to the verdict's model follows from ``trigger`` already. The id
    must be that of its data: another event could bear it."""
    model = state.models.get(trigger.data.adapter.model_id)
    return model is not None and trigger.id == trigger.data.event_id() and model.was_decided_by(trigger.id)


def _wanted(state: State, trigger: Envelope[Any], rollout: RolloutSpec) -> Iterator[LifecycleEvent]:
    data = trigger.data
    if not isinstance(data, RolloutJudged):
        yield from _registrations(state, data)
    yield from _restorations(state)
    match data:
        case EvalPassed():
            yield from _after_pass(state, trigger, rollout)
        case EvalFailed():
            yield from _after_fail(state, trigger)
        case RolloutJudged():
            yield from _after_judgement(state, trigger, rollout)
        case _:
            pass
    yield from _retirements(state)


def _registrations(state: State, data: TrainCompleted | EvalPassed | EvalFailed) -> Iterator[ModelRegistered]:
    adapter = data.adapter
    base_id = base_model_id(adapter.base)
    if base_id not in state.models:
        yield ModelRegistered(
            project=state.project, model_id=base_id, kind="base", base=adapter.base,
            base_facts=adapter.base_facts,
        )  # fmt: skip
    known = state.models.get(adapter.model_id)
    if known is None:
        yield ModelRegistered(
            project=state.project,
            model_id=adapter.model_id,
            kind="full" if adapter.method is TrainMethod.FULL else "adapter",
            base=adapter.base,
            adapter=adapter,
            run_id=data.run_id,
            dataset_id=data.dataset_id,
        )
    elif known.registration.adapter != adapter:
        raise InvalidEvent(
            field="adapter",
            reason=f"differs from the one registered as {adapter.model_id}; retrain as a new run",
        )


def _after_pass(
    state: State, trigger: Envelope[EvalPassed], rollout: RolloutSpec
) -> Iterator[LifecycleEvent]:
    model = known_model(state, trigger.data.adapter.model_id)
    if model.stage is Stage.REJECTED and not model.was_decided_by(trigger.id):
        raise InvalidEvent(
            field="adapter.model_id", reason=f"{model.model_id} was rejected; that is final for a version"
        )
    if model.stage is Stage.REGISTERED:
        checks = len(trigger.data.checks)
        promotion = _promotion(
            state, model, Stage.EVALUATED, trigger.id, f"meets all of its {checks} criteria"
        )
        yield promotion.model_copy(update={"bundle": trigger.data.bundle})
    if model.stage is Stage.EVALUATED:
        newer = state.newer_in_traffic(model)
        if newer is not None:
            yield _promotion(
                state, model, Stage.RETIRED, trigger.id,
                f"passed too late: the newer version {newer.model_id} is in {newer.stage.value}",
            )  # fmt: skip
            return
        for older in state.candidates:
            yield _promotion(
                state, older, Stage.RETIRED, trigger.id, f"superseded by the newer candidate {model.model_id}"
            )
        yield _promotion(state, model, *_entry(state, rollout, trigger.id))


def _after_fail(state: State, trigger: Envelope[EvalFailed]) -> Iterator[LifecycleEvent]:
    """A failed verdict, or a person's rejection, is final, also of what had passed or was approved before:
    the model goes out of traffic, and if it served its predecessor does again. A version that has left
    traffic is rejected too, so that the log says what the person decided."""
    model = known_model(state, trigger.data.adapter.model_id)
    reason = "; ".join(trigger.data.reasons)
    has_left = model.stage is Stage.RETIRED and not model.was_decided_by(trigger.id)
    if model.stage is Stage.REGISTERED or has_left:
        yield _promotion(state, model, Stage.REJECTED, trigger.id, reason)
    elif model.stage in (*CANDIDATE_STAGES, Stage.PRODUCTION):
        yield _rollback(state, model, trigger.id, reason)
    elif model.stage is Stage.EVALUATED:  # a crash cut its pass short, which is delivered again
        yield _promotion(state, model, Stage.RETIRED, trigger.id, reason)


def _restorations(state: State) -> Iterator[LifecycleEvent]:
    """Bring the champion of before back where the one in production was rolled back. Not tied to the trigger:
    a crash may have left it over."""
    predecessor = state.predecessor
    if state.champion is not None or predecessor is None:
        return
    fallen = [
        m for m in state.models.values() if m.stage is Stage.ROLLED_BACK and m.has_been(Stage.PRODUCTION)
    ]
    if fallen:
        cause = fallen[-1].history[-1].cause
        reason = f"restored: {fallen[-1].model_id} was rolled back"
        yield _promotion(state, predecessor, Stage.PRODUCTION, cause or "", reason)


def _after_judgement(
    state: State, trigger: Envelope[RolloutJudged], rollout: RolloutSpec
) -> Iterator[LifecycleEvent]:
    judged = trigger.data
    model, stage = known_model(state, judged.model_id), Stage(judged.stage)
    # The first verdict on a stage counts; one that comes after the model left the stage is out of date.
    if model.stage is not stage:
        if not model.has_been(stage):
            reason = f"is {stage.value}, but {model.model_id} never was there; it is in {model.stage.value}"
            raise InvalidEvent(field="stage", reason=reason)
        return
    if judged.verdict == "failed":
        reason = "; ".join(judged.reasons) or f"did worse than the champion in {stage.value}"
        yield _rollback(state, model, trigger.id, reason)
        return
    to_canary = stage is Stage.SHADOW and rollout.canary.enabled
    reason = f"held up over {judged.requests} requests in {stage.value}"
    yield _promotion(state, model, Stage.CANARY if to_canary else Stage.PRODUCTION, trigger.id, reason)


def _entry(state: State, rollout: RolloutSpec, cause: str) -> tuple[Stage, str, str]:
    """Return (stage, cause, reason) of a passed candidate's first contact with traffic."""
    if state.champion is None:
        return Stage.PRODUCTION, cause, "there is no champion to compare with"
    if rollout.shadow.enabled:
        return Stage.SHADOW, cause, "starts on copies of the traffic"
    if rollout.canary.enabled:
        return Stage.CANARY, cause, f"starts on {rollout.canary.percent} % of the traffic"
    return Stage.PRODUCTION, cause, "the rollout has neither shadow nor canary"


def _retirements(state: State) -> Iterator[LifecycleEvent]:
    """Retire whoever a production model replaced. Not tied to the trigger: a crash may have left it over."""
    for model in state.models.values():
        old = state.models.get(model.replaces or "")
        if old is not None and old.stage is model.stage is Stage.PRODUCTION:
            cause = next(step.cause for step in model.history if step.stage is Stage.PRODUCTION)
            yield _promotion(state, old, Stage.RETIRED, cause or "", f"replaced by {model.model_id}")


def _rollback(state: State, model: Model, cause: str, reason: str) -> ModelRolledback:
    serves = state.predecessor if model.stage is Stage.PRODUCTION else state.champion
    return ModelRolledback(
        project=state.project,
        model_id=model.model_id,
        from_stage=model.stage,
        restored=serves.model_id if serves else None,
        cause=cause,
        reason=reason,
    )


def _promotion(state: State, model: Model, to_stage: Stage, cause: str, reason: str) -> ModelPromoted:
    champion = state.champion if to_stage is Stage.PRODUCTION else None
    return ModelPromoted(
        project=state.project,
        model_id=model.model_id,
        from_stage=model.stage,
        to_stage=to_stage,
        replaces=champion.model_id if champion else None,
        cause=cause,
        reason=reason,
    )

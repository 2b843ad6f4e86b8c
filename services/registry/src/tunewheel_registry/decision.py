"""Decides which events follow from a trained run, a verdict, a rollout judgement or a command.

``decide`` derives one event at a time from the trigger and the state, and applies it before it derives the
next. If a crash interrupts the publishing of a decision, the redelivered trigger yields exactly the events
that are missing on the log. A trigger whose events are all on the log yields none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalRequested, EvalUndecided
from tunewheel_contracts.events.lifecycle import CommandRefused, ModelCommanded, ModelRegistered, Stage
from tunewheel_contracts.events.production import RolloutBound, RolloutJudged
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.rollout_spec import RolloutSpec
from tunewheel_contracts.formats.scorecard import Gain

from tunewheel_registry.commands import COMMAND, carry_out
from tunewheel_registry.lifecycle import Decision, apply
from tunewheel_registry.state import Model, State, base_model_id, known_model
from tunewheel_registry.verdicts import Verdict, after_fail, after_pass, after_undecided
from tunewheel_registry.waiting import (
    advances,
    obstacle,
    promotion,
    requests,
    restorations,
    retirements,
    rollback,
    step_up,
    superseded,
    unpinnings,
)

DEADLINE, NO_GAIN, GUARD = "deadline", "no gain", "guard"
"""Values of ``decided_by`` in ``rollout.judged`` that do not mean: worse in this stage."""
ANSWERS, ERRORS = "answers", 3.5
"""The figure of ``rollout.judged`` about the answers; and how many standard errors its upper end lies above
it. An end that holds at any time is farther away than one for a fixed number of comparisons (2.33 at .01)."""


def decide(
    state: State, trigger: Envelope[Any], rollout: RolloutSpec, *, review_required: bool = False
) -> list[Decision]:
    """Return the events that follow from ``trigger`` (train.completed, eval.*, rollout.judged,
    model.commanded) and are not part of ``state`` yet. ``review_required``: whether the project's spec asks
    people to approve a model. Raises InvalidEvent: the trigger contradicts the state of the model."""
    decided: list[Decision] = []
    while (event := next(_wanted(state, trigger, rollout, review_required), None)) is not None:
        if not isinstance(event, CommandRefused | EvalRequested):
            event = event.model_copy(update={"generation": state.generation + 1})
        after = apply(state, event)
        if after is state:
            raise RuntimeError(
                f"{event.type} {event.event_id()} does not change the state, so it would be derived for ever"
            )
        decided.append(event)
        state = after
    return decided


def has_begun(state: State, trigger: Envelope[EvalPassed | EvalFailed]) -> bool:
    """Return whether a step of the verdict's model was already decided by ``trigger``. The envelope's id must
    equal the id of its data, because a forged envelope could bear another event's id."""
    model = state.models.get(trigger.data.adapter.model_id)
    return model is not None and trigger.id == trigger.data.event_id() and model.was_decided_by(trigger.id)


def _wanted(
    state: State, trigger: Envelope[Any], rollout: RolloutSpec, review_required: bool
) -> Iterator[Decision]:
    data = trigger.data
    if isinstance(data, TrainCompleted | Verdict):
        yield from _registrations(state, data)
    yield from unpinnings(state)
    yield from restorations(state)
    match data:
        case EvalPassed():
            yield from after_pass(state, trigger)
        case EvalFailed():
            yield from after_fail(state, trigger)
        case EvalUndecided():
            yield from after_undecided(state, trigger, rollout, review_required=review_required)
        case RolloutJudged():
            yield from _after_judgement(state, trigger, rollout)
        case ModelCommanded():
            yield from carry_out(state, data)
        case _:
            pass
    # These follow from the state alone. A crash may have left them undone.
    yield from superseded(state)
    yield from advances(state, rollout)
    yield from retirements(state)
    yield from requests(state)


def _registrations(state: State, data: TrainCompleted | Verdict) -> Iterator[ModelRegistered]:
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
            kind="full" if adapter.is_whole else "adapter",
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


def _after_judgement(
    state: State, trigger: Envelope[RolloutJudged], rollout: RolloutSpec
) -> Iterator[Decision]:
    judged = trigger.data
    model, stage = known_model(state, judged.model_id), Stage(judged.stage)
    if judged.decided_by == GUARD:
        yield from _after_guard(state, trigger, model)
        return
    # The first verdict on a stage counts. A verdict that arrives after the model left the stage is outdated.
    if model.stage is not stage:
        if not model.has_been(stage):
            reason = f"is {stage.value}, but {model.model_id} never was in it; it is in {model.stage.value}"
            raise InvalidEvent(field="stage", reason=reason)
        return
    if model.held_up_in is stage:
        return
    if judged.verdict == "failed":
        reason = "; ".join(judged.reasons) or f"did worse than the champion in {stage.value}"
        if judged.decided_by in (DEADLINE, NO_GAIN):  # Nothing shows that the model is worse.
            yield promotion(state, model, Stage.RETIRED, trigger.id, reason, decided_by="rollout")
        else:
            yield rollback(state, model, trigger.id, reason, "rollout")
        return
    reason = f"held up over {judged.requests} requests in {stage.value}"
    if model.is_doubted and all(bound.figure != ANSWERS for bound in judged.bounds):
        # A monitor of an earlier release judges errors, form and latency alone.
        reason += (
            ", but its answers were not compared, as its undecided evaluation asks; promote it by command"
        )
        yield promotion(state, model, Stage.RETIRED, trigger.id, reason, decided_by="rollout")
        return
    kept, gain = obstacle(state, model), gain_of(judged.bounds)
    measured = {} if gain is None else {"gain": gain}
    if kept is None:
        yield step_up(state, model, rollout, trigger.id, reason, **measured)
    else:
        yield promotion(
            state, model, stage, trigger.id, f"{reason}, but waits: {kept}",
            held_up=True, decided_by="rollout", **measured,
        )  # fmt: skip


def gain_of(bounds: Sequence[RolloutBound]) -> Gain | None:
    """Return how much better the answers were in the trial; None: nobody compared them. The figure is the
    candidate's share of worse answers, minus the champion's."""
    bound = next((one for one in bounds if one.figure == ANSWERS and one.pairs), None)
    if bound is None:
        return None
    loss = bound.candidate - bound.champion
    return Gain(difference=-loss, error=max(0.0, bound.high - loss) / ERRORS, of="trial")


def _after_guard(state: State, trigger: Envelope[RolloutJudged], model: Model) -> Iterator[Decision]:
    """Roll back a model that a trial promoted and that does worse in production.

    Only the promotion by that trial is undone: the model may have come back to production later, by command
    or as a predecessor. A pinned model stays.
    """
    judged = trigger.data
    way = [step.stage for step in model.history[-2:]]
    is_its_step = way == [Stage(judged.stage), Stage.PRODUCTION] and model.decided_by != COMMAND
    is_pinned = state.pinned is not None and state.pinned.model_id == model.model_id
    if judged.verdict == "failed" and is_its_step and not is_pinned:
        yield rollback(state, model, trigger.id, "; ".join(judged.reasons), "rollout")

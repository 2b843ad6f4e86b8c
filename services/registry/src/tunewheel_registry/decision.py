"""Decides which events follow from a trained run, a verdict, a rollout judgement or a command.

``decide`` derives one event at a time from the trigger and the state, and applies it before it derives the
next. If a crash interrupts the publishing of a decision, the redelivered trigger yields exactly the events
that are missing on the log. A trigger whose events are all on the log yields none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalRequested, EvalUndecided
from tunewheel_contracts.events.lifecycle import (
    CommandRefused,
    ModelCommanded,
    ModelRegistered,
    Stage,
)
from tunewheel_contracts.events.production import RolloutJudged
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.rollout_spec import RolloutSpec
from tunewheel_contracts.formats.scorecard import Role

from tunewheel_registry.commands import COMMAND, carry_out
from tunewheel_registry.lifecycle import (
    CANDIDATE_STAGES,
    Decision,
    Model,
    State,
    apply,
    base_model_id,
    known_model,
)
from tunewheel_registry.waiting import (
    advances,
    obstacle,
    promotion,
    request_of,
    requests,
    restorations,
    retirements,
    rollback,
    step_up,
    superseded,
    unpinnings,
)

DEADLINE, GUARD = "deadline", "guard"
"""Values of ``decided_by`` in ``rollout.judged`` where the stage's own measurements did not decide."""
Trigger = TrainCompleted | EvalPassed | EvalFailed | EvalUndecided | RolloutJudged | ModelCommanded


def decide(state: State, trigger: Envelope[Any], rollout: RolloutSpec) -> list[Decision]:
    """Return the events that follow from ``trigger`` (train.completed, eval.*, rollout.judged,
    model.commanded) and are not part of ``state`` yet.

    Raises:
        InvalidEvent: the trigger contradicts the state of the model.
    """
    decided: list[Decision] = []
    while (event := next(_wanted(state, trigger, rollout), None)) is not None:
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


def _wanted(state: State, trigger: Envelope[Any], rollout: RolloutSpec) -> Iterator[Decision]:
    data = trigger.data
    if isinstance(data, TrainCompleted | EvalPassed | EvalFailed):
        yield from _registrations(state, data)
    yield from unpinnings(state)
    yield from restorations(state)
    match data:
        case EvalPassed():
            yield from _after_pass(state, trigger)
        case EvalFailed():
            yield from _after_fail(state, trigger)
        case EvalUndecided():
            yield from _after_undecided(state, trigger)
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


def _after_pass(state: State, trigger: Envelope[EvalPassed]) -> Iterator[Decision]:
    """Record the passed verdict. Whether the model then goes on or waits is decided by ``waiting``."""
    verdict = trigger.data
    model = known_model(state, verdict.adapter.model_id)
    if _is_done(model, trigger):
        return
    if model.stage is Stage.REJECTED:
        raise InvalidEvent(
            field="adapter.model_id", reason=f"{model.model_id} was rejected; that is final for a version"
        )
    first = model.stage is Stage.REGISTERED
    if not first and model.stage not in (Stage.EVALUATED, *CANDIDATE_STAGES):
        return
    against = _champion_of(verdict)
    beaten = model.beaten | ({against} if against else set())
    reason = _met(verdict)
    kept = obstacle(state, replace(model, beaten=beaten))
    yield promotion(
        state, model, Stage.EVALUATED if first else model.stage, trigger.id,
        reason if kept is None else f"{reason}, but waits: {kept}",
        against=against, bundle=verdict.bundle, decided_by="criteria",
    )  # fmt: skip


def _champion_of(verdict: EvalPassed | EvalFailed | EvalUndecided) -> str | None:
    return next((c.model_id for c in verdict.contestants if c.role is Role.CHAMPION), None)


def _met(verdict: EvalPassed) -> str:
    missed = [str(check.criterion.metric) for check in verdict.checks if not check.passed]
    if not missed:
        return f"meets all of its {len(verdict.checks)} criteria"
    return f"misses {', '.join(missed)}; {verdict.reviewed_by or 'a review'} overruled that"


def _is_done(model: Model, verdict: Envelope[Any]) -> bool:
    """Return whether ``verdict`` decided a step of the model other than its registration."""
    return model.stage is not Stage.REGISTERED and model.was_decided_by(verdict.id)


def _after_fail(state: State, trigger: Envelope[EvalFailed]) -> Iterator[Decision]:
    """Apply a failed verdict or a person's rejection. Both are final, even for a model that passed before.

    The model leaves the traffic; if it was in production, its predecessor comes back. A person's rejection is
    also recorded for a model that already left the traffic. There are two exceptions: metrics alone do not
    roll back a model that a person promoted, and ``_says_little`` names failures that are ignored.
    """
    model = known_model(state, trigger.data.adapter.model_id)
    if _is_done(model, trigger):
        return
    reason = "; ".join(trigger.data.reasons)
    by = "review" if trigger.data.field == "review" else "criteria"
    if by == "criteria" and _says_little(state, model, trigger.data):
        return
    overruled = by == "criteria" and model.decided_by == COMMAND
    if model.stage in (Stage.REGISTERED, Stage.EVALUATED, Stage.RETIRED):
        yield promotion(state, model, Stage.REJECTED, trigger.id, reason, decided_by=by)
    elif model.stage in CANDIDATE_STAGES or (model.stage is Stage.PRODUCTION and not overruled):
        yield rollback(state, model, trigger.id, reason, by)
    elif model.stage is Stage.ROLLED_BACK and by == "review" and not model.is_out_for_good:
        yield promotion(state, model, Stage.REJECTED, trigger.id, reason, decided_by=by)


def _says_little(state: State, model: Model, verdict: EvalFailed) -> bool:
    """Return whether a failed verdict by criteria is no reason to move a model that had passed before.

    - A former champion stays available as a fallback, even if other models are better now.
    - A model in production is judged only against the model that it replaced. A verdict against another model
      does not count, nor one without checks (its rows were erased, or eval lacked memory).
    - A model that has beaten the present champion stays, if it failed against another champion.
    """
    champion, against = state.champion, _champion_of(verdict)
    if model.stage is Stage.RETIRED:
        return model.has_been(Stage.PRODUCTION)
    if model.stage is Stage.PRODUCTION:
        return not verdict.checks or against != model.replaces
    if champion is None or champion.model_id not in model.beaten:
        return False
    return against not in (None, champion.model_id)


def _after_undecided(state: State, trigger: Envelope[EvalUndecided]) -> Iterator[Decision]:
    """Apply an undecided verdict to the model that waits for it. No further verdict against this champion
    comes.

    A model in traffic is retired, as it would otherwise keep its share of the requests for ever. A model
    outside the traffic keeps waiting: a champion that it has beaten may come back, or a newer version retires
    it.
    """
    verdict, champion = trigger.data, state.champion
    model = state.models.get(verdict.adapter.model_id)
    if model is None or champion is None or _is_done(model, trigger):
        return
    asked = request_of(state, model)
    # A verdict without any judged row names no contestant. Then the request that caused it identifies it.
    if asked is None or (
        _champion_of(verdict) != champion.model_id and trigger.causation_id != asked.event_id()
    ):
        return
    so_far = "passed" if model.stage is Stage.EVALUATED else f"held up in {model.stage.value}"
    reason = (
        f"{so_far}, but it is undecided whether it is better than {champion.model_id}, which is in "
        f"production now: {'; '.join(verdict.reasons)}; promote it by command, or build a "
        "version with a larger holdout"
    )
    if model.stage is Stage.EVALUATED:
        yield promotion(
            state, model, Stage.EVALUATED, trigger.id, reason, held_up=True, decided_by="criteria"
        )
    else:
        yield promotion(state, model, Stage.RETIRED, trigger.id, reason, decided_by="criteria")


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
        if judged.decided_by == DEADLINE:  # Nothing was measured that speaks against the model.
            yield promotion(state, model, Stage.RETIRED, trigger.id, reason, decided_by="rollout")
        else:
            yield rollback(state, model, trigger.id, reason, "rollout")
        return
    reason = f"held up over {judged.requests} requests in {stage.value}"
    kept = obstacle(state, model)
    if kept is None:
        yield step_up(state, model, rollout, trigger.id, reason)
    else:
        yield promotion(
            state, model, stage, trigger.id, f"{reason}, but waits: {kept}",
            held_up=True, decided_by="rollout",
        )  # fmt: skip


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

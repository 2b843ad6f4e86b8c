"""Decides what follows from a verdict of eval on a model: passed, failed or undecided."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalUndecided
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.formats.rollout_spec import RolloutSpec
from tunewheel_contracts.formats.scorecard import UNDECIDED, Gain, Role

from tunewheel_registry.commands import COMMAND
from tunewheel_registry.lifecycle import Decision
from tunewheel_registry.state import CANDIDATE_STAGES, Model, State, known_model
from tunewheel_registry.waiting import obstacle, promotion, request_of, rollback

Verdict = EvalPassed | EvalFailed | EvalUndecided
WAYS_OUT = "promote it by command, or build a version with a larger holdout"


def after_pass(state: State, trigger: Envelope[EvalPassed]) -> Iterator[Decision]:
    """Record the passed verdict. Whether the model then goes on or waits is decided by ``waiting``."""
    verdict = trigger.data
    model = known_model(state, verdict.adapter.model_id)
    if _is_done(model, trigger):
        return
    if model.stage is Stage.REJECTED:
        raise InvalidEvent(
            field="adapter.model_id", reason=f"{model.model_id} was rejected; that is final for a version"
        )
    first = model.stage in (Stage.REGISTERED, Stage.UNDECIDED)
    if not first and model.stage not in (Stage.EVALUATED, *CANDIDATE_STAGES):
        return
    against = _champion_of(verdict)
    beaten = model.beaten | ({against} if against else set())
    reason = _met(verdict)
    kept = obstacle(state, replace(model, beaten=beaten))
    yield promotion(
        state, model, Stage.EVALUATED if first else model.stage, trigger.id, _but(reason, kept),
        against=against, bundle=verdict.bundle, gain=_gain(verdict), decided_by="criteria",
    )  # fmt: skip


def after_fail(state: State, trigger: Envelope[EvalFailed]) -> Iterator[Decision]:
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
    if model.stage in (Stage.REGISTERED, Stage.UNDECIDED, Stage.EVALUATED, Stage.RETIRED):
        yield promotion(state, model, Stage.REJECTED, trigger.id, reason, decided_by=by)
    elif model.stage in CANDIDATE_STAGES or (model.stage is Stage.PRODUCTION and not overruled):
        yield rollback(state, model, trigger.id, reason, by)
    elif model.stage is Stage.ROLLED_BACK and by == "review" and not model.is_out_for_good:
        yield promotion(state, model, Stage.REJECTED, trigger.id, reason, decided_by=by)


def _says_little(state: State, model: Model, verdict: EvalFailed) -> bool:
    """Return whether a failed verdict by criteria is no reason to move a model that was judged before.

    - A former champion stays available as a fallback, even if other models are better now.
    - A model in production is judged only against the model that it replaced. A verdict against another model
      does not count, nor one without checks (its rows were erased, or eval lacked memory).
    - A model that was compared with the present champion stays, if it failed against another champion.
    """
    champion, against = state.champion, _champion_of(verdict)
    if model.stage is Stage.RETIRED:
        return model.has_been(Stage.PRODUCTION)
    if model.stage is Stage.PRODUCTION:
        return not verdict.checks or against != model.replaces
    if champion is None or champion.model_id not in model.compared:
        return False
    return against not in (None, champion.model_id)


def after_undecided(
    state: State, trigger: Envelope[EvalUndecided], rollout: RolloutSpec, *, review_required: bool
) -> Iterator[Decision]:
    """Apply an undecided verdict: the first one, or one against the present champion.

    A model outside the traffic becomes ``undecided``; if ``to_show`` is known, ``waiting`` lets it go on
    trial. A model that held up in its trial and waits for this verdict retires: the trial was beside another
    champion, and a model has one trial in a stage.
    """
    verdict, champion = trigger.data, state.champion
    model = known_model(state, verdict.adapter.model_id)
    if _is_done(model, trigger):
        return
    asked = request_of(state, model)
    against, first = _champion_of(verdict), model.stage is Stage.REGISTERED
    # A verdict without any judged row names no contestant. Then the request that caused it identifies it.
    is_answer = asked is not None and trigger.causation_id == asked.event_id()
    if champion is not None and (is_answer or (first and not verdict.contestants)):
        against = champion.model_id
    is_present = champion is None or against == champion.model_id
    if first or (
        is_present and model.stage in (Stage.UNDECIDED, Stage.EVALUATED) and not _has_passed(model, champion)
    ):
        yield _undecided(state, model, trigger, against, rollout, review_required=review_required)
    elif is_present and asked is not None and model.stage in CANDIDATE_STAGES:
        reason = (
            f"held up in {model.stage.value}, but it is undecided whether it is better than {against}, which "
            f"is in production now: {'; '.join(verdict.reasons)}; {WAYS_OUT}"
        )
        yield promotion(state, model, Stage.RETIRED, trigger.id, reason, decided_by="criteria")


def _has_passed(model: Model, champion: Model | None) -> bool:
    return model.stage is Stage.EVALUATED and (champion is None or champion.model_id in model.beaten)


def _undecided(
    state: State,
    model: Model,
    trigger: Envelope[EvalUndecided],
    against: str | None,
    rollout: RolloutSpec,
    *,
    review_required: bool,
) -> Decision:
    verdict = trigger.data
    so_far = f"undecided: {'; '.join(verdict.reasons)}"
    bound = _to_show(verdict, rollout, spent=state.spent)
    if not rollout.undecided.enabled:
        why = "the project does not let a trial decide (rollout.undecided)"
    elif review_required and not model.has_been(Stage.EVALUATED):
        why = "people must approve it before a trial (review.required), and they are asked after a pass"
    elif bound is None:
        why = "nothing was measured that a trial could go on from"
    else:
        why = None
    if why is not None:
        bound, word = None, f"; {why}, so it waits: {WAYS_OUT.replace('command', 'command with force')}"
    else:
        word = _but("", obstacle(state, replace(model, stage=Stage.UNDECIDED, against=against)))
    return promotion(
        state, model, Stage.UNDECIDED, trigger.id,
        so_far + word, to_show=bound,
        against=against, bundle=verdict.bundle, gain=_gain(verdict), decided_by="criteria",
    )  # fmt: skip


def _to_show(verdict: EvalUndecided, rollout: RolloutSpec, *, spent: float) -> float | None:
    """Return what a trial has to show: the largest bound of the undecided criteria against the champion (or
    the base, where there is none), else the margin of shadow. What was lost already counts against it. None:
    no undecided criterion has a figure, so a trial would have nothing to go on from."""
    open_ones = [check for check in verdict.checks if check.outcome == UNDECIDED]
    if all(check.observed is None for check in open_ones):
        return None
    alone = _champion_of(verdict) is None
    bounds = [
        check.criterion.over_base if alone else check.criterion.over_champion
        for check in open_ones
        if check.is_of_share
    ]
    known = [bound for bound in bounds if bound is not None]
    return min(0.0, (max(known) if known else -rollout.shadow.margin) + spent)


def _gain(verdict: Verdict) -> Gain | None:
    """Return the measured advantage over the champion, on the first criterion that asks for one."""
    return next((check.gain for check in verdict.checks if check.gain is not None), None)


def _champion_of(verdict: Verdict) -> str | None:
    return next((c.model_id for c in verdict.contestants if c.role is Role.CHAMPION), None)


def _met(verdict: EvalPassed) -> str:
    missed = [check.criterion.title for check in verdict.checks if not check.passed]
    if not missed:
        return f"meets all of its {len(verdict.checks)} criteria"
    return f"misses {', '.join(missed)}; {verdict.reviewed_by or 'a review'} overruled that"


def _but(reason: str, kept: str | None) -> str:
    return reason if kept is None else f"{reason}, but waits: {kept}"


def _is_done(model: Model, verdict: Envelope[Any]) -> bool:
    """Return whether ``verdict`` decided a step of the model other than its registration."""
    return model.stage is not Stage.REGISTERED and model.was_decided_by(verdict.id)

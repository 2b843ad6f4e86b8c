"""Builds the events of a model's steps, and decides which judged model goes on and which waits.

A model goes on only if it was compared with the present champion. If the champion changed after the model's
verdict or trial, the model waits in its stage for a verdict against the new champion. An undecided model goes
on only to a trial that must show more. Only one trial runs at a time. A candidate keeps its place until it is
judged, even if newer versions pass meanwhile; otherwise a slow trial would never end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunewheel_contracts.events.evaluation import EvalRequested
from tunewheel_contracts.events.lifecycle import ModelPinned, ModelPromoted, ModelRolledback, Stage
from tunewheel_contracts.formats.rollout_spec import RolloutSpec

from tunewheel_registry.state import CANDIDATE_STAGES, JUDGED_STAGES, Model, State, written


def promotion(
    state: State, model: Model, to_stage: Stage, cause: str, reason: str, **more: Any
) -> ModelPromoted:
    """Return the step of ``model`` to ``to_stage``; ``more`` are further fields of the event."""
    champion = state.champion if to_stage is Stage.PRODUCTION else None
    if champion is not None:
        more.setdefault("gain", model.gains.get(champion.model_id))
    if to_stage is Stage.UNDECIDED:
        more |= {"undecided": True, "held_up": True}
    return ModelPromoted(
        project=state.project,
        model_id=model.model_id,
        from_stage=written(model.stage),
        to_stage=written(to_stage),
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
        from_stage=written(model.stage),
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


def obstacle(state: State, model: Model) -> str | None:
    """Return why a judged model cannot go on to the next stage; None: it can.

    Without a champion the base answers. Every verdict compares with the base, so none is missing then.
    """
    pinned, champion, trial = state.pinned, state.champion, state.trial
    if pinned is not None:
        return f"{pinned.model_id} is pinned in production"
    if champion is not None and champion.model_id not in model.compared:
        return (
            f"it was never compared with {champion.model_id}, which is in production, so it is judged again"
        )
    if trial is not None and trial.model_id != model.model_id:
        return f"{trial.model_id} is in {trial.stage.value}, and keeps its place until it is judged"
    for other in state.candidates if _is_open(state, model) else ():
        if request_of(state, other) is not None:
            return f"{other.model_id} held up in {other.stage.value}, and its next verdict comes first"
    return None


def superseded(state: State) -> Iterator[ModelPromoted]:
    """Retire outdated models: a candidate, if a newer version is in production; a model that waits for a
    trial, if a newer version is on trial or in production."""
    for model in state.candidates:
        newer = state.newer_in_traffic(model)
        if newer is not None and newer.stage is Stage.PRODUCTION:
            reason = f"superseded by the newer version {newer.model_id}"
            yield promotion(state, model, Stage.RETIRED, reign(newer), reason)
    for model in state.models.values():
        newer = state.newer_in_traffic(model) if model.stage in JUDGED_STAGES else None
        if newer is not None:
            reason = f"superseded: the newer version {newer.model_id} is in {newer.stage.value}"
            yield promotion(state, model, Stage.RETIRED, model.history[-1].cause or "", reason)


def advances(state: State, rollout: RolloutSpec) -> Iterator[ModelPromoted]:
    """Let the newest waiting model go on, if it can; a model that passed goes before an undecided one. A
    candidate that completed its trial, and waits for another reason than its turn, makes room for a model
    that passed."""
    waiting = [model for model in reversed(list(state.models.values())) if model.waits]
    for model in sorted(waiting, key=lambda model: _is_open(state, model)):
        if obstacle(state, model) is not None:
            continue
        cause = model.history[-1].cause or ""
        if model.stage not in JUDGED_STAGES:
            yield step_up(state, model, rollout, cause, "held up, and has nothing to wait for any more")
            continue
        more = {"to_show": model.to_show} if _is_open(state, model) else {}
        if more == {"to_show": None}:
            continue  # nothing that a trial could show; the reason of its last step says so
        stage, reason = _entry(state, rollout, **more)
        if (misfit := _misfit(state, model, stage)) is not None:
            yield promotion(state, model, Stage.RETIRED, cause, misfit, decided_by="rollout")
            continue
        for older in state.candidates:
            newer = f"superseded by the newer candidate {model.model_id}"
            yield promotion(state, older, Stage.RETIRED, cause, newer)
        yield promotion(state, model, stage, cause, reason, **more)


def _is_open(state: State, model: Model) -> bool:
    """Return whether it is undecided whether ``model`` is good enough beside the present champion. A champion
    that it has beaten earlier may have come back."""
    champion = state.champion
    has_beaten = champion is not None and champion.model_id in model.beaten
    return model.stage is Stage.UNDECIDED and not has_beaten


def _misfit(state: State, model: Model, entry: Stage) -> str | None:
    """Return why ``model`` cannot enter the traffic at ``entry`` beside the champion; None: it can.

    An engine serves one revision of one base. A trial on another base or revision would only get errors, or
    no requests. A person may promote such a model and start an engine for it.
    """
    champion = state.champion
    if champion is None:
        return None
    own, serving = model.registration.base, champion.registration.base
    if own.name != serving.name:
        mine, theirs = f"the base {own.name}", f"that of the champion, {serving.name}"
    elif own.revision != serving.revision and entry in CANDIDATE_STAGES:
        mine = f"revision {own.revision} of the base {own.name}"
        theirs = f"the champion's revision, {serving.revision}"
    else:
        return None
    return (
        f"was judged on {mine}, but the engine serves {theirs}, so a trial would get no requests; promote it "
        "by command and start an engine of its base"
    )


def step_up(
    state: State, model: Model, rollout: RolloutSpec, cause: str, reason: str, **more: Any
) -> ModelPromoted:
    """Return the step of a model that completed its stage to the next stage."""
    to_canary = model.stage is Stage.SHADOW and rollout.canary.enabled
    return promotion(state, model, Stage.CANARY if to_canary else Stage.PRODUCTION, cause, reason, **more)


def requests(state: State) -> Iterator[EvalRequested]:
    """Request the missing verdicts against the present champion. Each is requested once: earlier requests are
    on the log."""
    if state.pinned is not None:
        return
    for model in state.models.values():
        asked = request_of(state, model)
        if asked is not None and asked.event_id() not in state.requested:
            yield asked


def request_of(state: State, model: Model) -> EvalRequested | None:
    """Return the request for the verdict that ``model`` waits for; None: it waits for none."""
    if not model.waits:  # Cheap, and true of most models.
        return None
    champion, run_id, verdict = state.champion, model.registration.run_id, model.judged_by
    if champion is None or champion.model_id in model.compared:
        return None
    if run_id is None or verdict is None:
        return None
    so_far = "was undecided" if model.stage is Stage.UNDECIDED else "passed"
    return EvalRequested(
        project=state.project,
        run_id=run_id,
        against=champion.model_id,
        request=verdict,
        reason=f"{model.model_id} {so_far}, but was never compared with {champion.model_id}",
    )


def _entry(state: State, rollout: RolloutSpec, *, to_show: float | None = None) -> tuple[Stage, str]:
    """Return the stage in which a judged model enters the traffic, and the reason."""
    if to_show is not None:
        rival = state.champion.model_id if state.champion else "the base"
        than = (
            f"worse than those of {rival} by {-to_show:.3g}"
            if to_show < 0
            else f"better than those of {rival}"
        )
        words = f"not {than}" if to_show < 0 else than
        return Stage.SHADOW, f"starts on copies of the traffic, which must show that its answers are {words}"
    if rollout.shadow.enabled:
        beside = " that the base answers" if state.champion is None else ""
        return Stage.SHADOW, f"starts on copies of the traffic{beside}"
    if state.champion is None:
        return Stage.PRODUCTION, "there is no champion to compare with"
    if rollout.canary.enabled:
        return Stage.CANARY, f"starts on {rollout.canary.percent} % of the traffic"
    return Stage.PRODUCTION, "the rollout has neither shadow nor canary"

"""Decides which model that passed goes on, and which waits.

A model goes on only if it has beaten the present champion. If the champion changed after the model's verdict
or trial, the model waits in its stage for a verdict against the new champion. Only one trial runs at a time.
A candidate keeps its place until it is judged, even if newer versions pass meanwhile; otherwise a slow trial
would never end.
"""

from __future__ import annotations

from collections.abc import Iterator

from tunewheel_contracts.events.evaluation import EvalRequested
from tunewheel_contracts.events.lifecycle import ModelPromoted, Stage
from tunewheel_contracts.formats.rollout_spec import RolloutSpec

from tunewheel_registry.lifecycle import CANDIDATE_STAGES, Model, State
from tunewheel_registry.steps import promotion, reign


def obstacle(state: State, model: Model) -> str | None:
    """Return why a model that passed cannot go on to the next stage; None: it can.

    Without a champion the base answers. Every verdict compares with the base, so none is missing then.
    """
    pinned, champion, trial = state.pinned, state.champion, state.trial
    if pinned is not None:
        return f"{pinned.model_id} is pinned in production"
    if champion is not None and champion.model_id not in model.beaten:
        return (
            f"it was never compared with {champion.model_id}, which is in production, so it is judged again"
        )
    if trial is not None and trial.model_id != model.model_id:
        return f"{trial.model_id} is in {trial.stage.value}, and keeps its place until it is judged"
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
        newer = state.newer_in_traffic(model) if model.stage is Stage.EVALUATED else None
        if newer is not None:
            reason = f"superseded: the newer version {newer.model_id} is in {newer.stage.value}"
            yield promotion(state, model, Stage.RETIRED, model.history[-1].cause or "", reason)


def advances(state: State, rollout: RolloutSpec) -> Iterator[ModelPromoted]:
    """Let the newest waiting model go on, if it can. A candidate that completed its trial, and waits for
    another reason than its turn, makes room."""
    for model in reversed(list(state.models.values())):
        if not model.waits or obstacle(state, model) is not None:
            continue
        cause = model.history[-1].cause or ""
        if model.stage is not Stage.EVALUATED:
            yield step_up(state, model, rollout, cause, "held up, and has nothing to wait for any more")
            continue
        stage, reason = _entry(state, rollout)
        if (misfit := _misfit(state, model, stage)) is not None:
            yield promotion(state, model, Stage.RETIRED, cause, misfit, decided_by="rollout")
            continue
        for older in state.candidates:
            newer = f"superseded by the newer candidate {model.model_id}"
            yield promotion(state, older, Stage.RETIRED, cause, newer)
        yield promotion(state, model, stage, cause, reason)


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
        f"passed on {mine}, but the engine serves {theirs}, so a trial would get no requests; promote it by "
        "command and start an engine of its base"
    )


def step_up(state: State, model: Model, rollout: RolloutSpec, cause: str, reason: str) -> ModelPromoted:
    """Return the step of a model that completed its stage to the next stage."""
    to_canary = model.stage is Stage.SHADOW and rollout.canary.enabled
    return promotion(state, model, Stage.CANARY if to_canary else Stage.PRODUCTION, cause, reason)


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
    champion, run_id, verdict = state.champion, model.registration.run_id, model.passed_by
    if champion is None or not model.waits or champion.model_id in model.beaten:
        return None
    if run_id is None or verdict is None:
        return None
    return EvalRequested(
        project=state.project,
        run_id=run_id,
        against=champion.model_id,
        request=verdict,
        reason=f"{model.model_id} passed, but was never compared with {champion.model_id}",
    )


def _entry(state: State, rollout: RolloutSpec) -> tuple[Stage, str]:
    """Return the stage in which a model that passed enters the traffic, and the reason."""
    if rollout.shadow.enabled:
        beside = " that the base answers" if state.champion is None else ""
        return Stage.SHADOW, f"starts on copies of the traffic{beside}"
    if state.champion is None:
        return Stage.PRODUCTION, "there is no champion to compare with"
    if rollout.canary.enabled:
        return Stage.CANARY, f"starts on {rollout.canary.percent} % of the traffic"
    return Stage.PRODUCTION, "the rollout has neither shadow nor canary"

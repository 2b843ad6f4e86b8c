"""Who passed and may go on, who waits, and for what: nobody goes up who has not beaten the champion of now.

What a verdict or a trial found stays true, but the champion may be another since. A model that passed then
waits in its stage for a verdict against that one. One trial runs at a time: a candidate keeps its place until
it is judged, however many newer versions pass meanwhile, else a slow trial would never end.
"""

from __future__ import annotations

from collections.abc import Iterator

from tunewheel_contracts.events.evaluation import EvalRequested
from tunewheel_contracts.events.lifecycle import ModelPromoted, Stage
from tunewheel_contracts.formats.rollout_spec import RolloutSpec

from tunewheel_registry.lifecycle import CANDIDATE_STAGES, Model, State
from tunewheel_registry.steps import promotion, reign


def obstacle(state: State, model: Model) -> str | None:
    """Return what keeps a model that passed from going up a stage; None: nothing.

    Without a champion no verdict is missing: the base answers, which every verdict compares with.
    """
    pinned, champion, trial = state.pinned, state.champion, state.trial
    if pinned is not None:
        return f"{pinned.model_id} is pinned in production"
    if champion is not None and champion.model_id not in model.beaten:
        return f"it was never compared with {champion.model_id}, which is in production, and is judged again"
    if trial is not None and trial.model_id != model.model_id:
        return f"{trial.model_id} is in {trial.stage.value}, and keeps its place until it is judged"
    return None


def superseded(state: State) -> Iterator[ModelPromoted]:
    """Retire whoever is on trial while a newer version is in production, and whoever waits for a trial while
    a newer version has one, or is in production."""
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
    """Let the newest of those who wait go on, if nothing keeps it. Whoever held up on trial and waits for
    something else than its turn makes room."""
    for model in reversed(list(state.models.values())):
        if not model.waits or obstacle(state, model) is not None:
            continue
        cause = model.history[-1].cause or ""
        if model.stage is not Stage.EVALUATED:
            yield step_up(state, model, rollout, cause, "held up, and nothing keeps it any more")
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
    """Return why ``model`` cannot enter traffic at ``entry`` beside the champion: one engine serves one
    revision of one base, so a trial of another would see errors alone, or nothing. A person may promote it,
    who has the engine changed."""
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
        f"passed on {mine}, but the engine serves {theirs}: no trial beside it can see traffic; promote it "
        "by command and start an engine of its base"
    )


def step_up(state: State, model: Model, rollout: RolloutSpec, cause: str, reason: str) -> ModelPromoted:
    """Return the step of a model that held up in its stage."""
    to_canary = model.stage is Stage.SHADOW and rollout.canary.enabled
    return promotion(state, model, Stage.CANARY if to_canary else Stage.PRODUCTION, cause, reason)


def requests(state: State) -> Iterator[EvalRequested]:
    """Ask for verdicts against the champion of now, each once: what was asked for is on the log."""
    if state.pinned is not None:
        return
    for model in state.models.values():
        asked = request_of(state, model)
        if asked is not None and asked.event_id() not in state.requested:
            yield asked


def request_of(state: State, model: Model) -> EvalRequested | None:
    """Return the request for the verdict that ``model`` waits for; None where it waits for none."""
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
    """Return (stage, reason) of a passed candidate's first contact with traffic."""
    if rollout.shadow.enabled:
        beside = " that the base answers" if state.champion is None else ""
        return Stage.SHADOW, f"starts on copies of the traffic{beside}"
    if state.champion is None:
        return Stage.PRODUCTION, "there is no champion to compare with"
    if rollout.canary.enabled:
        return Stage.CANARY, f"starts on {rollout.canary.percent} % of the traffic"
    return Stage.PRODUCTION, "the rollout has neither shadow nor canary"

"""Runs the trials of candidates in shadow and canary, and guards them at first in production. Pure: no clock,
no I/O.

The state of a project is a dict that JSON can hold. It has some KiB while a trial runs:

    trials = new()
    follow(trials, envelope)               model.promoted, model.rolledback: in any order, twice is harmless
    count(trials, scored, rollout)         each inference.scored once, in the order of the project's partition
    ask(trials, project)                   requests to compare answers
    judge(trials, project, rollout, now)   what to publish; it leaves the state with that

A verdict is reached when an item is counted, and later items do not change it. So it does not matter how the
log is cut into batches, or how often ``judge`` is called. ``judge`` adds the deadlines. ``now`` is the
current time if the project's partition is read to its end, else the time of the last item read: evidence on
the log comes before the deadline.

If a model reaches production through its trial, the trial goes on as a ``guard``: the same tests, against the
champion's share in the trial. No other model answers at the same time, so figures that depend on the load
(latency, failures of the engine) are not judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import ComparisonsRequested
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRolledback, Stage
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.production import RolloutJudged
from tunewheel_contracts.formats.judge import JudgeSpec
from tunewheel_contracts.formats.rollout_spec import DAY, RolloutSpec, StagePolicy
from tunewheel_contracts.identity import content_sha256

from tunewheel_monitor.rollout.comparisons import (
    awaits_people,
    drawn,
    for_people,
    new_comparisons,
    take_fresh,
)
from tunewheel_monitor.rollout.counting import Trial, count_beside, count_guarded, new_trial
from tunewheel_monitor.rollout.verdicts import (
    ALPHA,
    bounds,
    decide,
    decide_guard,
    reference,
    summary,
    undecided,
)

Trials = dict[str, Any]
"""``open``: trials by model. ``passed``: passed trials whose model may reach production. ``closed``:
"model/stage" of trials that must not begin again."""
STAGES: dict[Stage, Literal["shadow", "canary"]] = {Stage.SHADOW: "shadow", Stage.CANARY: "canary"}
GUARD = "guard"
REMEMBERED = 60
"""How many closed stages are remembered, the latest."""
KEPT_PASSED = 3


@dataclass(frozen=True, slots=True)
class Judgement:
    data: RolloutJudged
    correlation_id: str | None


@dataclass(frozen=True, slots=True)
class Request:
    """``places``: by the champion's completion, the log positions of the champion's and of the candidate's
    answer, as [partition, offset]."""

    data: ComparisonsRequested
    correlation_id: str | None
    places: dict[str, list[Any]]


def new() -> Trials:
    return {"open": {}, "passed": {}, "closed": []}


def read(told: Trials) -> Trials:
    """Return stored trials. Those of an earlier release get what they lack."""
    for trial in told["open"].values():
        trial.setdefault("comparisons", new_comparisons())
        trial.setdefault("to_show", None)
        trial.setdefault("let_off", None)
    return told


def follow(trials: Trials, event: Envelope[ModelPromoted] | Envelope[ModelRolledback]) -> None:
    """Begin or end trials by a model's stage change."""
    data = event.data
    if isinstance(data, ModelRolledback):
        _end(trials, data.model_id)
    elif data.to_stage in STAGES:
        if data.from_stage is not data.to_stage:
            _begin(trials, event, STAGES[data.to_stage])
        elif data.model_id in trials["open"]:  # A verdict during the trial may leave nothing to show.
            _let_off(trials["open"][data.model_id], event)
    elif data.to_stage is Stage.PRODUCTION:
        _guard(trials, event)
    elif data.to_stage in (Stage.RETIRED, Stage.REJECTED):
        _end(trials, data.model_id)


def count(trials: Trials, item: InferenceScored, rollout: RolloutSpec) -> None:
    """Count one completion or rating in every trial that it belongs to. This may decide a trial."""
    for model_id, trial in trials["open"].items():
        at = item.at.timestamp()
        if trial["verdict"] is not None or item.pinned or at < trial["since"]:
            continue
        policy = _policy(trial, rollout)
        if at >= _deadline(trial, rollout):
            _expire(trial, rollout)
        elif trial["guard"]:
            if count_guarded(trial, model_id, item, policy):
                trial["verdict"] = decide_guard(trial, policy)
        else:
            if count_beside(trial, model_id, item, policy, alone=_is_alone(trial, rollout)):
                trial["verdict"] = decide(trial, policy, alone=_is_alone(trial, rollout))
            if trial["verdict"] is None and _is_spent(trial, rollout):
                _expire(trial, rollout)


def on_trial(trials: Trials, stage: str) -> list[str]:
    """Return the models whose trial is in ``stage``: ``shadow``, ``canary``, or ``GUARD``."""
    opened = trials["open"].items()
    return [model_id for model_id, one in opened if stage == (GUARD if one["guard"] else one["stage"])]


def ask(trials: Trials, project: str, judge: JudgeSpec | None = None) -> list[Request]:
    """Return the requests to compare pairs that were drawn since the last ones, each once. ``judge``: who
    compares them besides people."""
    made: list[Request] = []
    for model_id, trial in trials["open"].items():
        if trial["verdict"] is None and (fresh := take_fresh(trial["comparisons"])):
            state = trial["comparisons"]
            name = content_sha256([project, model_id, trial["stage"], trial["generation"]])[:12]
            request = ComparisonsRequested(
                project=project,
                request_id=f"compare-{name}",
                model_id=model_id,
                against=state["against"],
                stage=trial["stage"],
                revision=state["revision"],
                completion_ids=tuple(drawn(state)),
                pairs=tuple(
                    f"monitor/{project}/alarms/compare-{name}.{n}.json"
                    for n in range(1, state["revision"] + 1)
                ),
                judge=judge,
                for_people=for_people(state) if judge is not None else None,
            )
            made.append(Request(request, trial["correlation_id"], fresh))
    return made


def judge(trials: Trials, project: str, rollout: RolloutSpec, now: datetime) -> list[Judgement]:
    """Return the verdicts that were reached, each once, and end their trials."""
    return list(_judged(trials, project, rollout, now.timestamp()))


def _judged(trials: Trials, project: str, rollout: RolloutSpec, now: float) -> Iterator[Judgement]:
    for model_id, trial in list(trials["open"].items()):
        if trial["verdict"] is None and now >= _deadline(trial, rollout):
            _expire(trial, rollout)
        verdict = trial["verdict"]
        if verdict is None:
            continue
        del trials["open"][model_id]
        _close(trials, model_id, GUARD if trial["guard"] else trial["stage"])
        if verdict["verdict"] == "passed" and not trial["guard"]:
            _keep_passed(trials, model_id, trial, alone=_is_alone(trial, rollout))
        if verdict["decided_by"] is not None:
            yield Judgement(_event(model_id, trial, project, rollout), trial["correlation_id"])


def _event(model_id: str, trial: Trial, project: str, rollout: RolloutSpec) -> RolloutJudged:
    verdict, policy = trial["verdict"], _policy(trial, rollout)
    return RolloutJudged(
        project=project,
        model_id=model_id,
        stage=trial["stage"],
        generation=trial["generation"],
        verdict=verdict["verdict"],
        requests=trial["candidate"]["requests"],
        candidate=summary(trial, "candidate"),
        champion=summary(trial, "champion"),
        reasons=tuple(verdict["reasons"]),
        decided_by=verdict["decided_by"],
        bounds=bounds(trial, policy),
        alpha=ALPHA,
    )


def _begin(trials: Trials, event: Envelope[Any], stage: Literal["shadow", "canary"]) -> None:
    data = event.data
    known = trials["open"].get(data.model_id)
    if f"{data.model_id}/{stage}" in trials["closed"] or (known is not None and known["stage"] == stage):
        return
    trials["open"][data.model_id] = new_trial(
        stage=stage,
        since=event.time.timestamp(),
        generation=data.generation or 0,
        correlation_id=event.correlation_id,
        to_show=data.to_show,
    )


def _let_off(trial: Trial, event: Envelope[Any]) -> None:
    """Note what a trial has to show after another verdict. If that is nothing any more, the stage's deadline
    begins then: it may be shorter than the days of an undecided model, and be over."""
    if trial["to_show"] is not None and event.data.to_show is None:
        trial["let_off"] = event.time.timestamp()
    trial["to_show"] = event.data.to_show


def _guard(trials: Trials, event: Envelope[Any]) -> None:
    """Begin the guard of a model that reached production through its trial. A model that a person promoted
    has no guard."""
    data = event.data
    passed = trials["passed"].pop(data.model_id, None)
    known = trials["open"].get(data.model_id)
    if known is not None and known["guard"]:
        return
    is_over = f"{data.model_id}/{GUARD}" in trials["closed"]
    _end(trials, data.model_id)
    if data.replaces is not None:
        _end(trials, data.replaces)
    if passed is None or is_over or data.decided_by == "command" or data.from_stage not in STAGES:
        return
    trials["closed"].remove(f"{data.model_id}/{GUARD}")
    trials["open"][data.model_id] = new_trial(
        stage=passed["stage"],
        since=event.time.timestamp(),
        generation=data.generation or 0,
        correlation_id=event.correlation_id,
        guard=True,
        reference=passed["reference"],
    )


def _end(trials: Trials, model_id: str) -> None:
    trials["open"].pop(model_id, None)
    trials["passed"].pop(model_id, None)
    for stage in (*STAGES.values(), GUARD):
        _close(trials, model_id, stage)


def _close(trials: Trials, model_id: str, stage: str) -> None:
    name = f"{model_id}/{stage}"
    if name not in trials["closed"]:
        trials["closed"] = [*trials["closed"], name][-REMEMBERED:]


def _keep_passed(trials: Trials, model_id: str, trial: Trial, *, alone: bool) -> None:
    """Keep the champion's figures of the trial for the guard; None: there was no champion."""
    trials["passed"].pop(model_id, None)
    trials["passed"][model_id] = {"stage": trial["stage"], "reference": None if alone else reference(trial)}
    for oldest in list(trials["passed"])[:-KEPT_PASSED]:
        del trials["passed"][oldest]


def _policy(trial: Trial, rollout: RolloutSpec) -> StagePolicy:
    return rollout.shadow if trial["stage"] == "shadow" else rollout.canary


def _is_alone(trial: Trial, rollout: RolloutSpec) -> bool:
    """Return whether the candidate gets all traffic, so that there is no champion to compare it with."""
    return trial["stage"] == "canary" and rollout.canary.percent == 100


def _deadline(trial: Trial, rollout: RolloutSpec) -> float:
    if trial["to_show"] is not None:
        return trial["since"] + rollout.undecided.days * DAY
    seconds = rollout.guard_seconds if trial["guard"] else _policy(trial, rollout).deadline_seconds
    return (trial["since"] if trial["let_off"] is None else trial["let_off"]) + seconds


def _is_spent(trial: Trial, rollout: RolloutSpec) -> bool:
    """Return whether a trial that must show something has had its requests. A busy project has them before
    anybody can compare answers, so people have until the deadline."""
    had = trial["candidate"]["requests"] >= rollout.undecided.requests
    return had and trial["to_show"] is not None and not awaits_people(trial["comparisons"])


def _expire(trial: Trial, rollout: RolloutSpec) -> None:
    """End a trial at its deadline, or after its requests. A guard that found nothing ends without a
    verdict."""
    if trial["guard"]:
        trial["verdict"] = {"verdict": "passed", "decided_by": None, "reasons": []}
        return
    began = f"{datetime.fromtimestamp(trial['since'], UTC):%Y-%m-%d %H:%M} UTC"
    if _is_spent(trial, rollout):
        ended = f"undecided after {trial['candidate']['requests']:,} requests since {began}"
    else:
        ended = f"undecided {_deadline(trial, rollout) - trial['since']:,.0f} s after it began ({began})"
    trial["verdict"] = undecided(trial, _policy(trial, rollout), ended, alone=_is_alone(trial, rollout))

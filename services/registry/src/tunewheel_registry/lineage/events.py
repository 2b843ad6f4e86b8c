"""Turns one event into facts of the lineage graph: the node, its facts and its parents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events import data, evaluation, lifecycle, production, training
from tunewheel_contracts.fields import ArtifactRef

from tunewheel_registry.state import base_model_id


class Kind(StrEnum):
    """The kind of a node."""

    RECORD = "record"
    """One normalised ticket, document, example or feedback."""
    DATASET = "dataset"
    RUN = "run"
    MODEL = "model"
    EVALUATION = "evaluation"
    REVIEW = "review"
    ROLLOUT = "rollout"
    """A verdict on a shadow or canary stage."""
    STEP = "step"
    """A model changed its stage, or was pinned or unpinned."""
    COMMAND = "command"
    """A person's command about a model."""
    REQUEST = "request"
    """A request for a dataset version or an evaluation."""
    DRIFT = "drift"
    ERASURE = "erasure"


@dataclass(frozen=True, slots=True)
class Told:
    """The facts about one node that one event holds.

    ``parents`` and ``names`` are keys of nodes or ids of events. A node is found by each of its names.
    """

    key: str
    kind: Kind
    facts: dict[str, Any]
    parents: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    artifacts: dict[str, ArtifactRef] = field(default_factory=dict[str, ArtifactRef])


def told_by(event: Envelope[Any]) -> list[Told]:
    """Return the facts in ``event``; an empty list for a type that is not part of the graph. They hold no
    prompt, answer or correction. The reasons of commands, requests and verdicts are texts of people, too: a
    rejection quotes its comment."""
    tell = TELLS.get(type(event.data))
    return tell(event) if tell else []


def _cause(event: Envelope[Any]) -> tuple[str, ...]:
    return (event.causation_id,) if event.causation_id else ()


def _who(event: Any) -> dict[str, Any]:
    return {"by": event.principal.name} if event.principal else {}


def _requested(event: Envelope[data.DatasetRequested]) -> list[Told]:
    asked = event.data
    facts = {"asks_for": "dataset", "reason": asked.reason.value, "request": asked.request} | _who(asked)
    if event.causation_id:
        facts["cause"] = event.causation_id
    return [Told(event.id, Kind.REQUEST, facts, _cause(event))]


def _versioned(event: Envelope[data.DatasetVersioned]) -> list[Told]:
    made = event.data
    facts = {
        "reason": made.reason.value,
        "counts": made.counts.model_dump(mode="json"),
        "base_model": made.base_model,
        "previous": made.previous,
        "preliminary": made.preliminary,
    }
    return [Told(made.dataset_id, Kind.DATASET, facts, _cause(event), artifacts={"manifest": made.manifest})]


def _started(event: Envelope[training.TrainStarted]) -> list[Told]:
    run = event.data
    facts = {"state": "running", "method": run.method.value, "total_steps": run.total_steps}
    return [Told(run.run_id, Kind.RUN, facts, (run.dataset_id, base_model_id(run.base)))]


def _trained(event: Envelope[training.TrainCompleted]) -> list[Told]:
    run = event.data
    facts = {
        "state": "completed",
        "method": run.adapter.method.value,
        "loss": run.final_loss,
        "tokens": run.tokens,
        "seconds": run.wall_seconds,
    }
    parents = (run.dataset_id, base_model_id(run.adapter.base))
    return [Told(run.run_id, Kind.RUN, facts, parents, artifacts={"manifest": run.manifest})]


def _not_trained(event: Envelope[training.TrainFailed]) -> list[Told]:
    run = event.data
    facts = {"state": "failed", "field": run.field, "reason": run.reason}
    return [Told(run.run_id, Kind.RUN, facts, (run.dataset_id,))]


def _evaluation_key(verdict: Any) -> str:
    return verdict.evaluation_id or f"evaluation-of-{verdict.run_id}"


def _review_key(event: Any) -> str:
    return event.review_id or f"review-of-{event.run_id}"


def _evaluated(event: Envelope[Any]) -> list[Told]:
    verdict = event.data
    facts: dict[str, Any] = {
        "outcome": verdict.type.rpartition(".")[2],
        "contestants": {c.role.value: c.model_id for c in verdict.contestants},
        "criteria_sha256": verdict.criteria_sha256,
        "reasons": list(getattr(verdict, "reasons", ())),
        "scorecard": PurePosixPath(verdict.scorecard.path).stem,
    }
    if verdict.reviewed_by:
        facts["reviewed_by"] = verdict.reviewed_by
    if getattr(verdict, "principal", None):
        facts["principal"] = verdict.principal.name
    if verdict.review:
        facts["review"] = verdict.review.model_dump(mode="json")
    return [
        Told(
            _evaluation_key(verdict),
            Kind.EVALUATION,
            facts,
            (verdict.adapter.model_id, *_cause(event)),
            (facts["scorecard"],),
            {"scorecard": verdict.scorecard},
        )
    ]


def _review_requested(event: Envelope[evaluation.ReviewRequested]) -> list[Told]:
    asked = event.data
    (judged,) = _evaluated(event)
    judged.facts["outcome"] = "waits for people"
    facts = {"items": asked.items, "wanted": asked.reviewers}
    return [judged, Told(_review_key(asked), Kind.REVIEW, facts, (_evaluation_key(asked),))]


def _answered(event: Envelope[evaluation.ReviewAnswered]) -> list[Told]:
    answer = event.data
    said = {answer.reviewer: {"items": {answer.item_id}} | _who(answer)}
    return [Told(answer.review_id, Kind.REVIEW, {"reviewers": said})]


def _submitted(event: Envelope[evaluation.ReviewSubmitted]) -> list[Told]:
    review = event.data
    said = {review.reviewer: {"verdict": review.verdict} | _who(review)}
    return [Told(_review_key(review), Kind.REVIEW, {"reviewers": said}, _cause(event))]


def _evaluation_requested(event: Envelope[evaluation.EvalRequested]) -> list[Told]:
    asked = event.data
    facts = {"asks_for": "evaluation", "against": asked.against, "reason": asked.reason} | _who(asked)
    return [Told(event.id, Kind.REQUEST, facts, (asked.run_id, *_cause(event)))]


def _registered(event: Envelope[lifecycle.ModelRegistered]) -> list[Told]:
    model = event.data
    facts = {"kind": model.kind, "base": model.base.model_dump(mode="json")}
    # The run that first trained on a base model is not a parent of the base model.
    parents = (model.run_id,) if model.run_id else ()
    return [Told(model.model_id, Kind.MODEL, facts, parents)]


def _promoted(event: Envelope[lifecycle.ModelPromoted]) -> list[Told]:
    step = event.data
    facts = {"model": step.model_id, "from": step.stage_before.value, "to": step.stage.value}
    facts |= {"reason": step.reason, "replaces": step.replaces}
    return [Told(event.id, Kind.STEP, facts, (step.model_id, step.cause))]


def _rolled_back(event: Envelope[lifecycle.ModelRolledback]) -> list[Told]:
    step = event.data
    facts = {"model": step.model_id, "from": step.from_stage.value, "to": "rolled_back"}
    facts |= {"reason": step.reason, "restored": step.restored}
    return [Told(event.id, Kind.STEP, facts, (step.model_id, step.cause))]


def _pinned(event: Envelope[lifecycle.ModelPinned]) -> list[Told]:
    pin = event.data
    facts = {"model": pin.model_id, "pinned": pin.pinned, "reason": pin.reason} | (
        {"alone": True} if pin.alone else {}
    )
    return [Told(event.id, Kind.STEP, facts, (pin.model_id, pin.cause))]


def _commanded(event: Envelope[lifecycle.ModelCommanded]) -> list[Told]:
    command = event.data
    facts = {"action": command.action, "reason": command.reason} | _who(command)
    if command.requested_by:
        facts["requested_by"] = command.requested_by
    return [Told(event.id, Kind.COMMAND, facts, (command.model_id,))]


def _command_refused(event: Envelope[lifecycle.CommandRefused]) -> list[Told]:
    refused = event.data
    facts = {"action": refused.action, "refused": f"{refused.field} {refused.reason}"}
    return [Told(refused.command_id, Kind.COMMAND, facts, (refused.model_id,))]


def _judged(event: Envelope[production.RolloutJudged]) -> list[Told]:
    judged = event.data
    facts = {"stage": judged.stage, "verdict": judged.verdict, "requests": judged.requests}
    return [Told(event.id, Kind.ROLLOUT, facts | {"reasons": list(judged.reasons)}, (judged.model_id,))]


def _drifted(event: Envelope[production.DriftDetected]) -> list[Told]:
    drift = event.data
    facts = {
        "detector": drift.detector,
        "statistic": f"{drift.statistic_name} {drift.statistic:.3g}",
        "p_value": drift.p_value,
        "completions": drift.window.completions,
        "last_completion": drift.window.last_completion_id,
    }
    return [Told(event.id, Kind.DRIFT, facts, (drift.model_id,))]


def _erased(event: Envelope[data.ErasureCompleted]) -> list[Told]:
    proof = event.data
    facts: dict[str, Any] = {"holders": {proof.holder: proof.records}}
    if proof.holder == "curate":
        facts["deleted_datasets"] = list(proof.deleted_dataset_ids)
    artifacts = {"finding": proof.finding} if proof.finding else {}
    return [Told(proof.erasure_id, Kind.ERASURE, facts, proof.dataset_ids, artifacts=artifacts)]


TELLS: dict[type, Callable[[Envelope[Any]], list[Told]]] = {
    data.DatasetRequested: _requested,
    data.DatasetVersioned: _versioned,
    data.ErasureCompleted: _erased,
    training.TrainStarted: _started,
    training.TrainCompleted: _trained,
    training.TrainFailed: _not_trained,
    evaluation.EvalPassed: _evaluated,
    evaluation.EvalFailed: _evaluated,
    evaluation.EvalUndecided: _evaluated,
    evaluation.EvalRequested: _evaluation_requested,
    evaluation.ReviewRequested: _review_requested,
    evaluation.ReviewAnswered: _answered,
    evaluation.ReviewSubmitted: _submitted,
    lifecycle.ModelRegistered: _registered,
    lifecycle.ModelPromoted: _promoted,
    lifecycle.ModelRolledback: _rolled_back,
    lifecycle.ModelPinned: _pinned,
    lifecycle.ModelCommanded: _commanded,
    lifecycle.CommandRefused: _command_refused,
    production.DriftDetected: _drifted,
    production.RolloutJudged: _judged,
}
"""The events that are part of the graph."""

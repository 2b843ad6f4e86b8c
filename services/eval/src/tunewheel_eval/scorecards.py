"""Builds scorecards. A scorecard's id follows from its evaluation: run, champion, task, criteria and
method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tunewheel_contracts.events.evaluation import (
    EvalFailed,
    EvalPassed,
    EvalUndecided,
    ReviewRequested,
    ReviewSubmitted,
)
from tunewheel_contracts.fields import ArtifactRef, shared
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_contracts.formats.fingerprint import NextTokens
from tunewheel_contracts.formats.judge import JUDGED, JudgeReport
from tunewheel_contracts.formats.retrieval_scores import RetrievalScores
from tunewheel_contracts.formats.scorecard import UNDECIDED, Contestant, Rival, Role, Scorecard, Slice
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.significance import Clusters
from tunewheel_verdicts.verdict import judge, outcome_of

from tunewheel_eval.abstention import abstention_of
from tunewheel_eval.bundles import bundle_for, with_certainty
from tunewheel_eval.comparisons import findings, measured, requested_rows
from tunewheel_eval.errors import UnfitCandidate
from tunewheel_eval.looks import SPENT, WORN_OUT
from tunewheel_eval.metrics import LABELS, Outcomes
from tunewheel_eval.repeats import is_greedy

Verdict = EvalPassed | EvalFailed | EvalUndecided | ReviewRequested
HOLDOUT = "holdout"
"""The field that an undecided verdict names if its rows were looked at too often."""


@dataclass(frozen=True)
class Clustered:
    """Facts about the rows other than outcomes: clusters, looks, repeats, and left-out rows."""

    holdout: Clusters
    regression: Clusters
    labels: tuple[str | None, ...] = ()
    requests: tuple[str | None, ...] = ()
    """By held-out row: the request for labels that it answers."""
    looks: int | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    unvalidated: int = 0
    tasks: Mapping[str, Clusters] = field(default_factory=dict)
    """The clusters of lm-eval's questions, and of questions whose document is known, by the metrics'
    ``on``."""
    repeat_spreads: Mapping[str, float] = field(default_factory=dict)
    """The spread of repeats by metric; see ``repeats``."""


def build_scorecard(
    plan: EvaluationPlan,
    spec: ProjectSpec,
    outcomes: Mapping[Role, Outcomes],
    *,
    rows: Clustered,
    generations: ArtifactRef | None = None,
    seconds: Mapping[str, float] | None = None,
    precision: str,
    slices: Sequence[Slice] = (),
    retrieval: RetrievalScores | None = None,
    not_yet: Mapping[str, str] = MappingProxyType({}),
    compared: Mapping[str, Measured] = MappingProxyType({}),
    judge_report: JudgeReport | None = None,
    rivals: Sequence[Rival] = (),
    fingerprint: tuple[NextTokens, ...] = (),
) -> Scorecard:
    """Compare the candidate with every other contestant, and judge it by the plan's own criteria, or else by
    those of the spec. ``not_yet``: see ``judge``. ``compared``: metrics that
    compare two answers instead of scoring one. ``fingerprint``: that of the candidate."""
    seed = seed_of(plan)
    bundles = {role: bundle_for(plan, role, spec, precision=precision) for role in outcomes}
    abstains = abstention_of(outcomes[Role.CANDIDATE], rows.holdout, spec.serving.abstain)
    bundles[Role.CANDIDATE] = with_certainty(
        bundles[Role.CANDIDATE], outcomes[Role.CANDIDATE].calibration, abstains,
        label_field=spec.task.label_field,
    )  # fmt: skip
    bundles[Role.CANDIDATE] = bundles[Role.CANDIDATE].model_copy(update={"fingerprint": fingerprint})
    contestants = tuple(
        Contestant(
            role=role,
            model_id=adapter.model_id if (adapter := plan.contestants[role]) else plan.adapter.base.name,
            metrics=one.figures(),
            by_kind=one.by_kind(),
            by_label=_by_label(slices, role),
            bundle=bundles[role],
            cut=one.cut,
            calibration_curve=one.calibration,
            abstention=abstains if role is Role.CANDIDATE else None,
        )
        for role, one in outcomes.items()
    )
    by_metric = measured(
        outcomes,
        holdout=rows.holdout,
        regression=rows.regression,
        tasks=rows.tasks,
        repeat_spreads=rows.repeat_spreads,
        looks=spec.evaluation.looks,
        labels=rows.labels,
    ) | dict(compared)
    criteria = plan.criteria or spec.criteria
    found = findings(by_metric, {one.metric: one for one in criteria if not one.by_label}, seed=seed)
    repeated = is_greedy(spec.evaluation.decoding) or spec.evaluation.repeats > 0
    checks = judge(
        criteria,
        by_metric,
        spec.task,
        resolution=spec.evaluation.resolution,
        seed=seed,
        not_yet=not_yet,
        spent=plan.spent,
    )
    return Scorecard(
        **_names(plan),
        contestants=contestants,
        comparisons=(),
        checks=checks,
        passed=all(check.passed for check in checks),
        generations=generations,
        seconds=dict(seconds or {}),
        findings=found,
        metrics={name: metric.facts(repeated=repeated) for name, metric in by_metric.items()},
        looks=rows.looks,
        bundle=bundles[Role.CANDIDATE],
        left_out=dict(rows.left_out),
        unvalidated=rows.unvalidated,
        spent=plan.spent,
        slices=tuple(slices),
        retrieval=retrieval,
        judge=judge_report,
        not_judged=not_yet.get(JUDGED),
        requested=requested_rows(outcomes, compared, rows.requests, rows.holdout),
        rivals=tuple(rivals),
    )


def _by_label(slices: Sequence[Slice], role: Role) -> dict[str, float]:
    return {
        one.value: one.figures[role.value]
        for one in slices
        if one.by == "label" and one.metric == LABELS and role.value in one.figures
    }


def seed_of(plan: EvaluationPlan) -> int:
    """Return the seed of the sign flips. It follows from the plan, so a repetition gives the same result."""
    return int(plan.scorecard_id.rpartition("-")[2], 16)


def refusal(plan: EvaluationPlan, fault: UnfitCandidate) -> Scorecard:
    """Return the scorecard of a candidate that could not be measured."""
    return Scorecard(
        **_names(plan),
        contestants=(),
        comparisons=(),
        checks=(),
        passed=False,
        field=fault.field,
        reason=fault.reason,
    )


def worn_out(plan: EvaluationPlan) -> Scorecard:
    """Return the scorecard of a candidate for which all held-out rows were looked at too often."""
    return refusal(plan, UnfitCandidate(field=HOLDOUT, reason=WORN_OUT))


def verdict_of(plan: EvaluationPlan, scorecard: Scorecard, ref: ArtifactRef) -> Verdict:
    """Return the event for the automated part of the verdict. If a review is required, a pass waits for
    it."""
    if (undecided := _undecided(scorecard)) is not None:
        return EvalUndecided(**_evidence(plan, scorecard, ref), **undecided, moves_model=True)
    if not scorecard.passed:
        return EvalFailed(
            **_evidence(plan, scorecard, ref), field=scorecard.field, reasons=failures(scorecard)
        )
    if plan.review_required:
        return ReviewRequested(**_evidence(plan, scorecard, ref))
    return EvalPassed(**_evidence(plan, scorecard, ref))


def approved(
    plan: EvaluationPlan, scorecard: Scorecard, ref: ArtifactRef, review: ReviewSubmitted
) -> EvalPassed:
    """Return the pass that a person approved."""
    return EvalPassed(
        **_evidence(plan, scorecard, ref), reviewed_by=review.reviewer, principal=review.principal
    )


def rejected(
    plan: EvaluationPlan, scorecard: Scorecard, ref: ArtifactRef, review: ReviewSubmitted
) -> EvalFailed:
    """Return the failure that a person decided, independent of the figures."""
    return EvalFailed(
        **_evidence(plan, scorecard, ref),
        field="review",
        reasons=why_rejected(review),
        reviewed_by=review.reviewer,
        principal=review.principal,
    )


def why_rejected(review: ReviewSubmitted) -> tuple[str, ...]:
    """Return the reasons of a rejection for the failed verdict."""
    comment = shortened(review.comment, MOST_QUOTED)
    return (f"rejected by {review.reviewer}" + (f": {comment}" if comment else ""),)


def failures(scorecard: Scorecard) -> tuple[str, ...]:
    """Return why a scorecard is no pass: a reason for each criterion that is not met, missed ones first."""
    if scorecard.reason is not None:
        return (f"{scorecard.field}: {scorecard.reason}",)
    unmet = [check for check in scorecard.checks if not check.passed]
    return tuple(check.reason for check in sorted(unmet, key=lambda check: check.outcome == UNDECIDED))


def _undecided(scorecard: Scorecard) -> dict[str, Any] | None:
    """Return why it is undecided whether the candidate passes; None: it is decided."""
    if scorecard.field == HOLDOUT:
        return {"field": HOLDOUT, "reasons": (str(scorecard.reason),)}
    if scorecard.reason is not None or outcome_of(scorecard.checks) != UNDECIDED:
        return None
    open_ones = [check for check in scorecard.checks if check.outcome == UNDECIDED]
    return {
        "field": HOLDOUT if SPENT in scorecard.left_out else None,
        "reasons": tuple(check.reason for check in open_ones),
        "more_examples": max((check.more_examples or 0 for check in open_ones), default=0) or None,
    }


def _names(plan: EvaluationPlan) -> dict[str, Any]:
    return {
        "scorecard_id": plan.scorecard_id,
        "project": plan.project,
        "run_id": plan.run_id,
        "model_id": plan.adapter.model_id,
        "dataset_id": plan.dataset_id,
        "criteria_sha256": plan.criteria_sha256,
        "evaluation_id": plan.evaluation_id,
        "rows_id": plan.rows_id,
    }


def _evidence(plan: EvaluationPlan, scorecard: Scorecard, ref: ArtifactRef) -> dict[str, Any]:
    own = {"scorecard": ref, "contestants": scorecard.contestants}
    return shared(EvalPassed, scorecard, plan) | own


MOST_QUOTED = 500
"""The most characters of a comment that the reasons of a rejection quote."""
MOST_KEPT = 10_000
"""The most characters of each comment in a verdict."""


def shortened(comment: str, most: int) -> str:
    """Return a comment without surrounding blanks, cut after ``most`` characters. A comment may have a
    million characters, but a message on the log has at most four million bytes."""
    text = comment.strip()
    return text if len(text) <= most else f"{text[:most]}… (the whole comment is in review.submitted)"

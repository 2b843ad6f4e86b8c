"""Reviews without a review set: a person approves or rejects by a verdict alone.

A rejection is final for its run; an approval lets an automated pass through. Decisions are stored once,
beside the plan. So the service keeps no state, and a review that is delivered again gives the same verdict,
even if its reviewer has lost the role.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, ReviewRequested, ReviewSubmitted
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.plan import read_plan
from tunewheel_eval.scorecards import Verdict, approved, rejected

Check = Callable[[ReviewSubmitted], Awaitable[None]]
"""Raises ``InvalidEvent`` unless the person may review now."""


async def settle(store: ObjectStore, review: ReviewSubmitted, *, check: Check) -> EvalPassed | EvalFailed:
    """Turn a review into the final verdict. Raises InvalidEvent: the person may not review, no such run waits
    for a review, or it was rejected before."""
    before = await store.document(_path(review.run_id, review.verdict), ReviewSubmitted)
    if before is None or before.event_id() != review.event_id():  # a repeated review was checked before
        await check(review)
    plan = await _waiting(store, review)
    scorecard, ref = await _scorecard(store, plan)
    if before is None and review.verdict == "approved":
        await _refuse_after_rejection(store, plan)
    first = before or await store.first_document(_path(review.run_id, review.verdict), review)
    decision = await _named_decision(first, review, check)
    if decision.verdict == "rejected":
        return rejected(plan, scorecard, ref, decision)
    return approved(plan, scorecard, ref, decision)


async def after_review(store: ObjectStore, plan: EvaluationPlan, verdict: Verdict) -> Verdict:
    """Return the verdict of a later evaluation under people's earlier decision on the run. An approval holds,
    so nobody is asked twice. A rejection is final."""
    final = await store.document(_path(plan.run_id, "rejected"), ReviewSubmitted)
    approval = await store.document(_path(plan.run_id, "approved"), ReviewSubmitted)
    scorecard = await read_scorecard(store, plan)
    assert scorecard is not None
    if final is not None:
        return rejected(plan, *scorecard, final)
    if isinstance(verdict, ReviewRequested) and approval is not None:
        return approved(plan, *scorecard, approval)
    return verdict


async def reviewed_without_set(store: ObjectStore, run_id: str) -> bool:
    """Return whether people decided on a run by a verdict alone, as in releases before review sets."""
    found = [await store.exists(_path(run_id, verdict)) for verdict in ("approved", "rejected")]
    return any(found)


async def read_scorecard(store: ObjectStore, plan: EvaluationPlan) -> tuple[Scorecard, ArtifactRef] | None:
    """Return the run's scorecard with its reference; None: it is not judged yet."""
    data = await store.read(plan.scorecard_path)
    if data is None:
        return None
    ref = ArtifactRef(path=plan.scorecard_path, sha256=content_sha256(data), size_bytes=len(data))
    return decode_data(Scorecard, data), ref


async def _refuse_after_rejection(store: ObjectStore, plan: EvaluationPlan) -> None:
    final = await store.document(_path(plan.run_id, "rejected"), ReviewSubmitted)
    if final is not None:
        raise InvalidEvent(
            field="verdict",
            reason=f"comes after {final.reviewer} rejected run {plan.run_id}, which is final; "
            "build a new dataset version and train on it",
        )


async def _named_decision(first: ReviewSubmitted, review: ReviewSubmitted, check: Check) -> ReviewSubmitted:
    """Return the decision that the verdict names. It is the first one of its kind, unless that reviewer has
    lost the role, because the registry would then refuse the verdict."""
    if first.event_id() == review.event_id():
        return first
    try:
        await check(first)
    except InvalidEvent:
        return review
    return first


async def _waiting(store: ObjectStore, review: ReviewSubmitted) -> EvaluationPlan:
    plan = await read_plan(store, review.run_id)
    if plan is None or plan.project != review.project:
        reason = f"names no evaluated run of {review.project!r}; take it from review.requested"
        raise InvalidEvent(field="run_id", reason=f"{review.run_id!r} {reason}")
    if not plan.review_required:
        reason = f"{review.run_id!r} asks for no review; set spec.review.required for the next version"
        raise InvalidEvent(field="run_id", reason=reason)
    return plan


async def _scorecard(store: ObjectStore, plan: EvaluationPlan) -> tuple[Scorecard, ArtifactRef]:
    found = await read_scorecard(store, plan)
    if found is None:
        reason = f"{plan.run_id!r} is not judged yet; wait for review.requested"
        raise InvalidEvent(field="run_id", reason=reason)
    if not found[0].passed:
        reason = f"{plan.run_id!r} failed its criteria, which no review changes"
        raise InvalidEvent(field="run_id", reason=reason)
    return found


def _path(run_id: str, verdict: str) -> str:
    return f"runs/{run_id}/review-{verdict}.json"

"""Turns an automated verdict into a request for review, if people must decide and have not yet, and tells the
webhook of the project's spec that the review waits."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalUndecided, ReviewRequested
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.review import ReviewSet
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import ReviewSpec
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.webhooks import Notice, Webhook

from tunewheel_eval.artifacts import read_written
from tunewheel_eval.plan import read_manifest
from tunewheel_eval.reviewing.cases import Cases, Decision, ReviewCase, review_id_of
from tunewheel_eval.reviewing.drawing import draw
from tunewheel_eval.reviews import reviewed_without_set
from tunewheel_eval.scorecards import Verdict
from tunewheel_eval.settings import Settings

OTHER_IS_BASE = "base"
"""``ReviewSet.other_id`` if there was no champion. The base's name cannot be used: it need not be a slug."""
_EVIDENCE = (
    "project", "run_id", "dataset_id", "dataset", "adapter", "scorecard", "criteria_sha256", "contestants",
    "checks", "evaluation_id", "bundle",
)  # fmt: skip


async def ask(store: ObjectStore, verdict: Verdict) -> Verdict:
    """Return the event to publish for an automated verdict: the verdict itself, or a request for review.

    People are asked once about a run. Their decision also holds for its later evaluations. Raises
    InvalidEvent: the run's manifest cannot be read.
    """
    cases = Cases(store)
    case = await cases.read(review_id_of(verdict.project, verdict.run_id))
    if case is None:
        manifest = await read_manifest(store, verdict.dataset)
        asks = _asks(verdict, manifest.spec.review) and not await reviewed_without_set(store, verdict.run_id)
        return await _opened(cases, store, verdict, manifest) if asks else verdict
    if case.requested.scorecard == verdict.scorecard:
        return case.requested
    decision = await cases.rejection(case.review_id) or await cases.decision(case.review_id)
    if decision is not None:
        return _held(verdict, case, decision)
    return _request(verdict, case.requested) if isinstance(verdict, ReviewRequested) else verdict


def decided(case: ReviewCase, decision: Decision) -> EvalPassed | EvalFailed:
    """Return the final verdict on a case, by the people's decision."""
    return _with_decision(case.requested, decision)


def _asks(verdict: Verdict, rule: ReviewSpec) -> bool:
    if isinstance(verdict, ReviewRequested):
        return True
    missed = isinstance(verdict, EvalFailed | EvalUndecided)
    return missed and rule.override and bool(verdict.checks)  # no checks: the candidate was not measured


async def _opened(cases: Cases, store: ObjectStore, verdict: Verdict, manifest: DatasetManifest) -> Verdict:
    rule, review_id = manifest.spec.review, review_id_of(verdict.project, verdict.run_id)
    lines = await read_written(store, verdict.scorecard.path)
    found = draw(lines, manifest.spec.task, size=rule.sample, seed=verdict.scorecard.path)
    others = [one.model_id for one in verdict.contestants if one.role is Role.CHAMPION]
    if not found.items:  # Every output was erased, or all answers are equal: there is nothing to compare.
        return verdict
    drawn, ref = await cases.open(
        ReviewSet(
            review_id=review_id,
            project=verdict.project,
            run_id=verdict.run_id,
            evaluation_id=verdict.evaluation_id,
            candidate_id=verdict.adapter.model_id,
            other_id=others[0] if others else OTHER_IS_BASE,
            items=found.items,
            reviewers=rule.reviewers,
            per_item=rule.per_item,
        )
    )
    request = _plain(verdict).model_copy(
        update={
            "review_id": review_id,
            "review_set": ref,
            "items": len(drawn.items),
            "reviewers": rule.reviewers,
        }
    )
    case = ReviewCase(
        requested=request,
        rule=rule,
        drawn=tuple(item.item_id for item in drawn.items),
        strata=tuple(item.stratum for item in drawn.items),
        sizes=dict(found.sizes),
        equal=found.equal,
        missed=_missed(verdict),
    )
    return (await cases.keep(case)).requested


def _held(verdict: Verdict, case: ReviewCase, decision: Decision) -> Verdict:
    """Return the verdict of a later evaluation under an earlier decision. An approval replaces the review,
    but not the criteria: those that it did not override must be met."""
    if not decision.passed or isinstance(verdict, ReviewRequested):
        return _with_decision(verdict, decision)
    missed = _missed(verdict)
    if missed and set(missed) <= set(case.missed):
        return _with_decision(verdict, decision)
    return verdict


def _with_decision(verdict: Verdict, decision: Decision) -> EvalPassed | EvalFailed:
    said: dict[str, Any] = {
        "reviewed_by": decision.decided_by.reviewer,
        "principal": decision.decided_by.principal,
        "review": decision.outcome,
    }
    if decision.passed:
        return EvalPassed(**_evidence(verdict), **said)
    return EvalFailed(**_evidence(verdict), **said, field=decision.field, reasons=decision.reasons)


def _plain(verdict: Verdict) -> ReviewRequested:
    return ReviewRequested(**_evidence(verdict))


def _request(verdict: Verdict, asked: ReviewRequested) -> ReviewRequested:
    """Return a request for the review that is under way, for another evaluation."""
    names = ("review_id", "review_set", "items", "reviewers")
    return _plain(verdict).model_copy(update={name: getattr(asked, name) for name in names})


def _evidence(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in _EVIDENCE}


def _missed(verdict: Verdict) -> tuple[str, ...]:
    return tuple(check.criterion.title for check in verdict.checks if not check.passed)


TYPE = "review.waiting"
"""The type of the CloudEvent. It differs from ``review.requested`` because it contains less."""


class Notices:
    """Sends notices about reviews. After a crash a notice is sent again with the same id."""

    def __init__(self, store: ObjectStore, webhook: Webhook, settings: Settings) -> None:
        self._cases, self._webhook, self._settings = Cases(store), webhook, settings

    async def tell(self, event: Envelope[ReviewRequested], lease: Lease) -> None:
        """Send the notice of one review, unless it is decided or the project has no webhook. Raises
        LeaseLost: the partition moved, or the service stops. The next owner sends the notice."""
        url = await self._wants_to_know(event.data.review_id)
        if url is not None:
            page = self._settings.page(f"projects/{event.data.project}/reviews/{event.data.review_id}")
            await self._webhook.tell_under(lease, notice_of(event, page=page), url)

    async def _wants_to_know(self, review_id: str | None) -> str | None:
        case = await self._cases.read(review_id) if review_id is not None else None
        if case is None or case.rule.webhook is None:
            return None
        over = await self._cases.rejection(case.review_id) or await self._cases.decision(case.review_id)
        return None if over else case.rule.webhook


def notice_of(event: Envelope[ReviewRequested], *, page: str | None) -> Notice:
    """Return the notice for ``event``; ``page`` is the URL where people review."""
    asked = event.data
    data = {
        "project": asked.project,
        "run_id": asked.run_id,
        "review_id": asked.review_id,
        "items": asked.items,
        "reviewers": asked.reviewers,
        "url": page,
    }
    return Notice(event=event, type=TYPE, subject=asked.run_id, field="review.webhook", data=data)

"""Decides by people's submissions: nothing yet, an approval by all required reviewers, or a rejection.

A rejection counts at once and is final. Accepted submissions are stored. So a submission that is delivered
again leads to the same events, even if its reviewer has lost the role.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Event
from tunewheel_contracts.events.evaluation import ReviewAnswered, ReviewSubmitted
from tunewheel_contracts.formats.review import ReviewOutcome
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.reviewing.answers import Answers, check_answer, counted, missing
from tunewheel_eval.reviewing.asking import decided
from tunewheel_eval.reviewing.cases import Cases, Decision, ReviewCase, Submission, person_of, review_id_of
from tunewheel_eval.reviewing.corrections import corrections
from tunewheel_eval.reviewing.preference import outcome_of
from tunewheel_eval.reviews import settle
from tunewheel_eval.scorecards import why_rejected

Check = Callable[[ReviewSubmitted | ReviewAnswered], Awaitable[None]]
"""Raises ``InvalidEvent`` unless the person may review now."""
_SLACK = 1e-9
"""Tolerance for rounding: a preference that equals the limit must not fail by the last bits."""


class Reviews:
    """Handles reviewers' answers and submissions."""

    def __init__(self, store: ObjectStore, answers: Answers, check: Check) -> None:
        self._store, self._cases = store, Cases(store)
        self._answers, self._check = answers, check

    async def accept(self, answer: ReviewAnswered) -> None:
        """Check an answer. It counts when its reviewer submits.

        Raises:
            InvalidEvent: the review or the item does not exist, the person may not review, or the answer
            comes after
                the person's submission or after the decision.
        """
        case = await self._case(answer)
        assert case is not None  # an answer names its review
        submission = await self._cases.submission(case.review_id, person_of(answer))
        if submission is not None and counted(answer, submission):
            return
        await self._check(answer)
        check_answer(answer, await self._cases.read_set(case.review_id))
        await self._refuse_when_over(case)
        if submission is not None:
            reason = f"{answer.review_id!r} was submitted by {answer.reviewer} before this answer"
            raise InvalidEvent(field="review_id", reason=reason)

    async def settle(self, review: ReviewSubmitted) -> Sequence[Event]:
        """Return the events that follow from a submission: none while other submissions are missing, else the
        verdict and the corrected examples. Raises InvalidEvent: the person may not review, no such review
        waits, it is decided, or the submission lacks answers or a comment."""
        case = await self._case(review)
        if case is None:
            return [await settle(self._store, review, check=self._check)]
        rejects = review.verdict == "rejected"
        decision = await (self._reject(case, review) if rejects else self._approve(case, review))
        if decision is None:
            return []
        reviewed = await self._cases.read_set(case.review_id)
        submissions = await self._cases.submissions(case.review_id)
        return [decided(case, decision), *corrections(reviewed, submissions)]

    async def _case(self, said: ReviewSubmitted | ReviewAnswered) -> ReviewCase | None:
        case = await self._cases.read(review_id_of(said.project, said.run_id))
        if said.review_id is not None and (case is None or said.review_id != case.review_id):
            reason = (
                f"{said.review_id!r} is no review of run {said.run_id!r}; take both from review.requested"
            )
            raise InvalidEvent(field="review_id", reason=reason)
        return case

    async def _approve(self, case: ReviewCase, review: ReviewSubmitted) -> Decision | None:
        """Return the decision that this approval completes."""
        before = await self._cases.submission(case.review_id, person_of(review))
        if before is None or before.review.event_id() != review.event_id():
            await self._check(review)
            await self._refuse_after_rejection(case)
            if before is not None:  # this person approved before
                return None
            decision = await self._cases.decision(case.review_id)
            if decision is not None:
                return await self._agreed(case, decision, review)
            await self._cases.submit(case.review_id, await self._complete(case, review))
        decision = await self._cases.decision(case.review_id) or await self._decide(case, review)
        return decision if decision is not None and _is_by(decision, review) else None

    async def _complete(self, case: ReviewCase, review: ReviewSubmitted) -> Submission:
        """Return the approval with its answers. Raises InvalidEvent if something is missing."""
        rule, submission = case.rule, await self._submission(case, review)
        if review.review_id is None:
            if rule.reviewers > 1 or rule.min_preference is not None or case.missed:
                reason = f"is missing: run {review.run_id!r} asks for answers to its review set; give them"
                raise InvalidEvent(field="review_id", reason=reason)
            return submission
        owed = missing(submission, case, await self._cases.read_set(case.review_id))
        if owed:
            reason = (
                f"of {review.reviewer} lack {owed} items of {case.review_id}; answer them, then submit again"
            )
            raise InvalidEvent(field="answers", reason=reason)
        if case.missed and not review.comment.strip():
            reason = f"is empty; say why the candidate is good although it misses {', '.join(case.missed)}"
            raise InvalidEvent(field="comment", reason=reason)
        return submission

    async def _decide(self, case: ReviewCase, review: ReviewSubmitted) -> Decision | None:
        if await self._cases.rejection(case.review_id) is not None:
            return None
        submissions = [
            one for one in await self._cases.submissions(case.review_id) if one.review.verdict == "approved"
        ]
        if len(submissions) < case.rule.reviewers:
            return None
        outcome = _outcome(case, submissions)
        reason = _against(case, outcome)
        if reason is None:
            decision = Decision(decided_by=review, passed=True, outcome=outcome)
        else:
            reasons = (reason,)
            decision = Decision(
                decided_by=review,
                passed=False,
                outcome=outcome,
                field="review.min_preference",
                reasons=reasons,
            )
        return await self._cases.decide(case.review_id, decision)

    async def _reject(self, case: ReviewCase, review: ReviewSubmitted) -> Decision:
        first = await self._cases.rejection(case.review_id)
        if first is not None and _is_by(first, review):
            return first
        await self._check(review)
        if first is not None:
            return await self._named(first, review)
        await self._cases.submit(case.review_id, await self._submission(case, review))
        outcome = _outcome(case, await self._cases.submissions(case.review_id))
        decision = Decision(
            decided_by=review, passed=False, outcome=outcome, field="review", reasons=why_rejected(review)
        )
        return await self._cases.decide(case.review_id, decision)

    async def _agreed(self, case: ReviewCase, decision: Decision, review: ReviewSubmitted) -> Decision:
        """Return the decided approval under the name of this later approver, if the first approver has lost
        the role: the registry accepts no verdict from a person without it. Raises InvalidEvent if the first
        approver still has the role: the review is decided."""
        named = await self._named(decision, review)
        if _is_by(named, review):
            return named
        raise InvalidEvent(field="review_id", reason=f"{case.review_id!r} is decided already")

    async def _named(self, decision: Decision, review: ReviewSubmitted) -> Decision:
        try:
            await self._check(decision.decided_by)
        except InvalidEvent:
            return decision.model_copy(update={"decided_by": review})
        return decision

    async def _refuse_when_over(self, case: ReviewCase) -> None:
        await self._refuse_after_rejection(case, field="review_id")
        if await self._cases.decision(case.review_id) is not None:
            raise InvalidEvent(field="review_id", reason=f"{case.review_id!r} is decided already")

    async def _refuse_after_rejection(self, case: ReviewCase, *, field: str = "verdict") -> None:
        final = await self._cases.rejection(case.review_id)
        if final is not None:
            who, run_id = final.decided_by.reviewer, case.requested.run_id
            reason = f"comes after {who} rejected run {run_id}, which is final"
            raise InvalidEvent(field=field, reason=f"{reason}; build a new dataset version and train on it")

    async def _submission(self, case: ReviewCase, review: ReviewSubmitted) -> Submission:
        """Return a person's submission. Answers to items that were erased since keep only the preference."""
        reviewed = await self._cases.read_set(case.review_id)
        left = {item.item_id for item in reviewed.items} if reviewed is not None else set[str]()
        answers = tuple(
            one if one.item_id in left else one.model_copy(update={"corrected": None})
            for one in self._answers.of(case.review_id, person_of(review))
            if one.item_id in case.drawn
        )
        return Submission(review=review, answers=answers)


def _is_by(decision: Decision, review: ReviewSubmitted) -> bool:
    return decision.decided_by.event_id() == review.event_id()


def _outcome(case: ReviewCase, submissions: Sequence[Submission]) -> ReviewOutcome | None:
    """Summarise the answers; None: all reviewers gave only a verdict."""
    if not any(one.answers for one in submissions) and not case.missed:
        return None
    answers = {person_of(one.review): one.answers for one in submissions}
    comments = [one.review.comment for one in submissions]
    return outcome_of(
        answers,
        strata=dict(zip(case.drawn, case.strata, strict=False)),
        sizes=case.sizes,
        equal=case.equal,
        comments=comments,
        overrides=case.missed,
    )


def _against(case: ReviewCase, outcome: ReviewOutcome | None) -> str | None:
    """Return why the answers do not let the candidate pass; None: they do.

    Reviewers do not know which side was the candidate, so an approval says only that the answers decide. The
    rule without ``min_preference``: the interval must not lie below one half, and for an override it must lie
    above it.
    """
    wanted = case.rule.min_preference
    if outcome is None:
        if wanted is None:  # a plain approval, as logs and tools of before know it
            return None
        return f"nothing was compared, where a preference of {wanted:.0%} is asked for"
    low, high = outcome.preference_low, outcome.preference_high
    said = f"preferred on {outcome.preference:.0%} of prompts (95 % interval {low:.0%} to {high:.0%})"
    if wanted is not None:
        if low >= wanted - _SLACK:
            return None
        return f"{said}: the lower end misses the {wanted:.0%} that spec.review.min_preference asks for"
    if case.missed:
        missed = ", ".join(case.missed)
        return None if low > 0.5 + _SLACK else f"{said}: not above 50 %, so it does not outrank {missed}"
    return None if high >= 0.5 - _SLACK else f"{said}: the other model is preferred"

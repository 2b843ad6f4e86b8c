"""The state of reviews of answers, folded from events: answers, submissions and outcomes. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import (
    EvalFailed,
    EvalPassed,
    EvalUndecided,
    ReviewAnswered,
    ReviewRequested,
    ReviewSubmitted,
)
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRolledback, Stage

TAKEN_OUT = (Stage.RETIRED, Stage.REJECTED)
"""The stages of a model in which its reviews are cancelled."""
Moment = tuple[datetime, str]


@dataclass
class Review:
    """One review of answers. Its events come from several topics, so an answer may come before the
    request."""

    request: Envelope[ReviewRequested] | None = None
    """The first request. A run that is evaluated again meanwhile waits for the same review."""
    evaluations: dict[str | None, datetime] = field(default_factory=dict[str | None, datetime])
    """The evaluations that wait for this review, and since when."""
    answers: dict[str, dict[str, Envelope[ReviewAnswered]]] = field(
        default_factory=dict[str, dict[str, Envelope[ReviewAnswered]]]
    )
    """By reviewer and item, the last answer. Dropped when the review ends."""
    submissions: dict[str, ReviewSubmitted] = field(default_factory=dict[str, ReviewSubmitted])
    """By the id of the event."""
    outcome: str | None = None
    """How it ended; None while it waits."""
    _counts: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    """By reviewer, how often each preference was given. Kept from the answers when the review ends."""

    def add_request(self, request: Envelope[ReviewRequested]) -> None:
        """Keep ``request`` if it is the first one."""
        if self.request is None or request.time < self.request.time:
            self.request = request
        self.evaluations.setdefault(request.data.evaluation_id, request.time)

    def add_answer(self, answer: Envelope[ReviewAnswered]) -> None:
        """Keep ``answer`` unless the same person has given a later one to the same item."""
        if self.outcome is not None:
            return
        of_reviewer = self.answers.setdefault(answer.data.reviewer, {})
        known = of_reviewer.get(answer.data.item_id)
        if known is None or _order(known) <= _order(answer):
            of_reviewer[answer.data.item_id] = answer

    def end(self, outcome: str) -> None:
        """Set the outcome, and drop the answers' texts, which are on the log."""
        self._counts = {reviewer: self.preferences_of(reviewer) for reviewer in self.answers}
        self.answers.clear()
        self.outcome = outcome

    def answers_of(self, reviewer: str) -> dict[str, Envelope[ReviewAnswered]]:
        return self.answers.get(reviewer, {})

    def submission_of(self, reviewer: str) -> ReviewSubmitted | None:
        return next((one for one in self.submissions.values() if one.reviewer == reviewer), None)

    def waits_for(self, reviewer: str) -> bool:
        return self.request is not None and self.outcome is None and self.submission_of(reviewer) is None

    @property
    def submitters(self) -> frozenset[str]:
        return frozenset(one.reviewer for one in self.submissions.values())

    def preferences_of(self, reviewer: str) -> Counter[str]:
        """Return how often ``reviewer`` called the candidate better, the same or worse."""
        if self.outcome is not None:
            return self._counts.get(reviewer, Counter[str]())
        return Counter(answer.data.preference for answer in self.answers_of(reviewer).values())


@dataclass
class Reviews:
    """The reviews of one project."""

    by_id: dict[str, Review] = field(default_factory=dict[str, Review])
    _verdicts: dict[tuple[str, str | None], Moment] = field(
        default_factory=dict[tuple[str, str | None], Moment]
    )
    """The last verdict of each evaluation, by run and evaluation."""
    _taken_out: dict[str, Moment] = field(default_factory=dict[str, Moment])
    """By model, when it last came to a stage of ``TAKEN_OUT``, and which."""

    @property
    def waiting(self) -> list[Review]:
        return [one for one in self.by_id.values() if one.request is not None and one.outcome is None]

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event. The same event a second time changes nothing."""
        match envelope.data:
            case ReviewRequested() as data if data.review_id is not None and data.review_set is not None:
                self._of(data.review_id).add_request(envelope)
            case ReviewAnswered() as data:
                self._of(data.review_id).add_answer(envelope)
                return
            case ReviewSubmitted() as data if data.review_id is not None:
                self._of(data.review_id).submissions[envelope.id] = data
                return
            case EvalPassed() | EvalFailed() | EvalUndecided() as data:
                said = envelope.time, data.type.removeprefix("eval.")
                key = data.run_id, data.evaluation_id
                self._verdicts[key] = max(said, self._verdicts.get(key, said))
            case ModelPromoted() as data if data.to_stage in TAKEN_OUT:
                self._take_out(data.model_id, (envelope.time, data.to_stage.value))
            case ModelRolledback() as data:
                self._take_out(data.model_id, (envelope.time, Stage.ROLLED_BACK.value))
            case _:
                return
        self._end_decided()

    def refuse(self, event_id: str) -> None:
        """Remove a submission whose sender may not review."""
        for review in self.by_id.values():
            review.submissions.pop(event_id, None)

    def _of(self, review_id: str) -> Review:
        return self.by_id.setdefault(review_id, Review())

    def _take_out(self, model_id: str, moment: Moment) -> None:
        self._taken_out[model_id] = max(moment, self._taken_out.get(model_id, moment))

    def _end_decided(self) -> None:
        """End the reviews that a later verdict, or a later command on the model, has decided."""
        for review in self.waiting:
            assert review.request is not None
            asked, at = review.request.data, review.request.time
            taken_out = self._taken_out.get(asked.adapter.model_id)
            for evaluation, since in review.evaluations.items():
                verdict = self._verdicts.get((asked.run_id, evaluation))
                if verdict is not None and verdict[0] >= since:
                    review.end(verdict[1])
                    break
            else:
                if taken_out is not None and taken_out[0] >= at:
                    review.end(f"cancelled: the model was {taken_out[1].replace('_', ' ')}")


def _order(answer: Envelope[ReviewAnswered]) -> tuple[int, datetime]:
    return answer.data.revision, answer.time

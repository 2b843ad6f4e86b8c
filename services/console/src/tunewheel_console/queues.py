"""What waits for people, folded from events: reviews of answers with their submissions and outcomes, and
requests for labels. Pure."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.events.evaluation import (
    AnswersCompared,
    ComparisonsRequested,
    EvalFailed,
    EvalPassed,
    EvalUndecided,
    ReviewAnswered,
    ReviewRequested,
    ReviewSubmitted,
)
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.monitoring import DriftResolved
from tunewheel_contracts.events.production import RolloutJudged
from tunewheel_contracts.events.turns import LabelsRequested, TurnDecided
from tunewheel_contracts.events.upstream import ExamplePublished
from tunewheel_contracts.formats.label_prompts import LABEL_REQUEST
from tunewheel_contracts.formats.review import pair_id
from tunewheel_contracts.principal import Trust
from tunewheel_wheel.models import STEPS, Models, stage_after

TAKEN_OUT = (Stage.RETIRED, Stage.REJECTED, Stage.ROLLED_BACK)
"""The stages of a model in which its reviews are cancelled."""
Moment = tuple[datetime, str]
Asked = Envelope[ReviewRequested] | Envelope[ComparisonsRequested]
Answered = Envelope[ReviewAnswered] | Envelope[AnswersCompared]


@dataclass
class Review:
    """One review of answers, before a candidate is served or while its trial runs. Its events come from
    several topics, so an answer may come before the request."""

    request: Asked | None = None
    """The first request: a run that is evaluated again meanwhile waits for the same review. Of the
    comparisons of a trial, the newest."""
    evaluations: dict[str | None, datetime] = field(default_factory=dict[str | None, datetime])
    """The evaluations, or the stage, that wait for this review, and since when."""
    answers: dict[str, dict[str, Answered]] = field(default_factory=dict[str, dict[str, Answered]])
    """By reviewer and item, the answer that counts. Dropped when the review ends."""
    submissions: dict[str, ReviewSubmitted] = field(default_factory=dict[str, ReviewSubmitted])
    """By the id of the event."""
    outcome: str | None = None
    """How it ended; None while it waits."""
    _counts: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    """By reviewer, how often each preference was given. Kept from the answers when the review ends."""

    def add_request(self, request: Envelope[ReviewRequested]) -> None:
        if self.request is None or request.time < self.request.time:
            self.request = request
        self.evaluations.setdefault(request.data.evaluation_id, request.time)

    def add_comparisons(self, request: Envelope[ComparisonsRequested]) -> None:
        if self.comparisons is None or self.comparisons.revision < request.data.revision:
            self.request = request
        self.evaluations.setdefault(request.data.stage, request.time)

    @property
    def comparisons(self) -> ComparisonsRequested | None:
        """The request, if a trial's answers are compared. Such a review needs no submission."""
        asked = self.request.data if self.request is not None else None
        return asked if isinstance(asked, ComparisonsRequested) else None

    @property
    def subject(self) -> str:
        """The run, or the model on trial, that waits; empty: the request is not known yet."""
        asked = self.request.data if self.request is not None else None
        return getattr(asked, "model_id" if self.comparisons else "run_id", "")

    @property
    def people(self) -> int:
        """How many people are asked; 0: any number."""
        asked = self.request.data if self.request is not None else None
        return (asked.reviewers or 1) if isinstance(asked, ReviewRequested) else 0

    @property
    def compared(self) -> frozenset[str]:
        """The items that somebody has answered."""
        return frozenset(item for answers in self.answers.values() for item in answers)

    def add_comparison(self, answer: Envelope[AnswersCompared]) -> None:
        """Keep ``answer``. The first one of a person to a pair counts."""
        if self.outcome is None and answer.data.reviewer is not None:
            of_reviewer = self.answers.setdefault(answer.data.reviewer, {})
            of_reviewer.setdefault(pair_id(answer.data.completion_id), answer)

    def add_answer(self, answer: Envelope[ReviewAnswered]) -> None:
        """Keep ``answer`` unless the same person has given a later one to the same item."""
        if self.outcome is not None:
            return
        of_reviewer = self.answers.setdefault(answer.data.reviewer, {})
        before = of_reviewer.get(answer.data.item_id)
        if before is None or _order(before) <= _order(answer):
            of_reviewer[answer.data.item_id] = answer

    def end(self, outcome: str) -> None:
        """Set the outcome, and drop the answers' texts, which are on the log."""
        self._counts = {reviewer: self.preferences_of(reviewer) for reviewer in self.answers}
        self.answers.clear()
        self.outcome = outcome

    def answers_of(self, reviewer: str) -> dict[str, Answered]:
        return self.answers.get(reviewer, {})

    def submission_of(self, reviewer: str) -> ReviewSubmitted | None:
        return next((one for one in self.submissions.values() if one.reviewer == reviewer), None)

    def waits_for(self, reviewer: str) -> bool:
        if self.comparisons is not None and len(self.compared) >= self.comparisons.items:
            return False
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

    models: Models = field(default_factory=Models)
    """The project's models, to which the registry's steps are applied first."""
    by_id: dict[str, Review] = field(default_factory=dict[str, Review])
    _verdicts: dict[tuple[str, str | None], Moment] = field(
        default_factory=dict[tuple[str, str | None], Moment]
    )
    """The last verdict of each evaluation, by run and evaluation, and of each trial, by model and stage."""

    @property
    def waiting(self) -> list[Review]:
        return [one for one in self.by_id.values() if one.request is not None and one.outcome is None]

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event. The same event a second time changes nothing."""
        match envelope.data:
            case ReviewRequested() as data if data.review_id is not None and data.review_set is not None:
                self._of(data.review_id).add_request(envelope)
            case ComparisonsRequested() as data:
                self._of(data.request_id).add_comparisons(envelope)
            case AnswersCompared() as data:
                self._of(data.request_id).add_comparison(envelope)
                return
            case RolloutJudged() as data:
                said = envelope.time, data.verdict
                key = data.model_id, data.stage
                self._verdicts[key] = max(said, self._verdicts.get(key, said))
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
            case data if not isinstance(data, STEPS):
                return
        self._end_decided()

    def refuse(self, event_id: str) -> None:
        """Remove a submission whose sender may not review."""
        for review in self.by_id.values():
            review.submissions.pop(event_id, None)

    def _of(self, review_id: str) -> Review:
        return self.by_id.setdefault(review_id, Review())

    def _end_decided(self) -> None:
        """End the reviews that a later verdict, or a later command on the model, has decided."""
        for review in self.waiting:
            assert review.request is not None
            asked, at = review.request.data, review.request.time
            model_id = asked.model_id if isinstance(asked, ComparisonsRequested) else asked.adapter.model_id
            steps = self.models.steps(model_id)
            taken_out = [step for step in steps if stage_after(step) in TAKEN_OUT and step.time >= at]
            for evaluation, since in review.evaluations.items():
                verdict = self._verdicts.get((review.subject, evaluation))
                if verdict is not None and verdict[0] >= since:
                    review.end(verdict[1])
                    break
            else:
                if taken_out:
                    stage = stage_after(taken_out[-1]).value.replace("_", " ")
                    review.end(f"cancelled: the model was {stage}")


def _order(answer: Answered) -> tuple[int, datetime]:
    return getattr(answer.data, "revision", 0), answer.time


@dataclass
class LabelRequests:
    """The requests for labels of one project. Their events come from several topics, in any order."""

    by_id: dict[str, Envelope[LabelsRequested]] = field(default_factory=dict[str, Envelope[LabelsRequested]])
    """The newest revision of each request. ``wanted`` is the number of answers for which curate waits now.
    After a failed turn it is larger than the monitor's."""
    answered: set[str] = field(default_factory=set[str])
    """Completions that an expert has answered, here or elsewhere, according to the latest records. Older
    records are not read."""
    outside: set[str] = field(default_factory=set[str])
    """The same for completions that an expert has called out of scope."""
    given: dict[str, str] = field(default_factory=dict[str, str])
    """By completion, the latest answer that was given to a request, as far as it is known. It is in memory
    only, and shown only beside a prompt that was not erased."""
    _resolved: dict[str, str] = field(default_factory=dict[str, str])
    """By alarm, why it was resolved."""
    _decided: Envelope[TurnDecided] | None = None
    """The latest decision."""

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event. The same event a second time changes nothing."""
        match envelope.data:
            case LabelsRequested() as data:
                newest = self.by_id.get(data.request_id, envelope)
                self.by_id[data.request_id] = max(newest, envelope, key=lambda one: one.data.revision)
                self._count_wanted()
            case TurnDecided() if self._decided is None or self._decided.time <= envelope.time:
                self._decided = envelope
                self._count_wanted()
            case RecordIngested() as data if data.trust is Trust.EXPERT and self._is_wanted(data.source_id):
                told, other = (
                    (self.answered, self.outside)
                    if data.output is not None
                    else (self.outside, self.answered)
                )
                told.add(data.source_id)
                other.discard(data.source_id)
                if LABEL_REQUEST in data.attributes:
                    self.given[data.source_id] = data.output or ""
            case ExamplePublished() as data if LABEL_REQUEST in data.attributes:
                output = data.output
                self.given[data.example_id] = (
                    output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
                )
            case DriftResolved() as data:
                self._resolved[data.alarm_id] = data.reason
            case _:
                pass

    def _count_wanted(self) -> None:
        alarms = self._decided.data.alarms if self._decided is not None else ()
        needed = {alarm.alarm_id: alarm.labels_needed for alarm in alarms if alarm.labels_needed}
        for name, request in self.by_id.items():
            if wanted := needed.get(request.data.alarm_id):
                more = request.data.model_copy(update={"wanted": wanted})
                self.by_id[name] = replace(request, data=more)

    def _is_wanted(self, completion_id: str) -> bool:
        return any(completion_id in one.data.completion_ids for one in self.by_id.values())

    def lacking(self, request_id: str) -> dict[str, int]:
        """Return how many answers each topic of a request needs yet, by the latest decision."""
        alarms = self._decided.data.alarms if self._decided is not None else ()
        own = self.by_id[request_id].data.alarm_id
        return next((dict(one.lacking) for one in alarms if one.alarm_id == own), {})

    def settled(self, request_id: str) -> frozenset[str]:
        """Return the prompts of a request whose topics have enough answers."""
        lacking = self.lacking(request_id)
        topics = self.by_id[request_id].data.clusters
        return frozenset(
            name for one in topics if lacking.get(one.cluster_id) == 0 for name in one.completion_ids
        )

    def outcome_of(self, request_id: str) -> str | None:
        return self._resolved.get(self.by_id[request_id].data.alarm_id)

    @property
    def waiting(self) -> list[Envelope[LabelsRequested]]:
        return [
            one for name, one in self.by_id.items() if self.outcome_of(name) is None and not one.data.asked_by
        ]

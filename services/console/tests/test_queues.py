"""What the log says of reviews, in whatever order its topics are read."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, ReviewAnswered, ReviewSubmitted
from tunewheel_contracts.events.lifecycle import Stage

REVIEW = "rev-1"


def answered(desk: Any, item: str = "i-1", reviewer: str = "ann", **changes: Any) -> Envelope[Any]:
    fields = {"preference": "better", "run_id": desk.run_id, "review_id": REVIEW} | changes
    return desk.event(ReviewAnswered(project=desk.project, item_id=item, reviewer=reviewer, **fields))


def submitted(desk: Any, reviewer: str = "ann") -> Envelope[Any]:
    return desk.event(
        ReviewSubmitted(
            project=desk.project, run_id=desk.run_id, reviewer=reviewer, verdict="approved", review_id=REVIEW
        )
    )


def asked(desk: Any, **changes: Any) -> Envelope[Any]:
    return desk.review_requested(**desk.asks(REVIEW, items=3, reviewers=2) | changes)


def test_events_of_a_review_add_up_in_any_order(make_state: Any, desk: Any):
    events = [asked(desk), answered(desk), answered(desk, "i-2", preference="same"), submitted(desk)]
    for order in itertools.permutations(events):
        state = make_state()
        for event in (*order, *order):
            state.apply(event)
        review = state.projects["desk"].reviews.by_id[REVIEW]
        assert review.request == events[0]
        assert review.preferences_of("ann") == {"better": 1, "same": 1}
        assert (review.waits_for("ann"), review.waits_for("bob")) == (False, True)
        assert review.submitters == {"ann"}


def test_a_later_revision_counts_whenever_it_is_read(make_state: Any, desk: Any):
    first, second = answered(desk), answered(desk, preference="worse", revision=2)
    for order in ((first, second), (second, first)):
        state = make_state()
        for event in order:
            state.apply(event)
        assert state.projects["desk"].reviews.by_id[REVIEW].preferences_of("ann") == {"worse": 1}


@pytest.mark.parametrize(("kind", "outcome"), [(EvalPassed, "passed"), (EvalFailed, "failed")])
def test_the_verdict_ends_it_and_its_texts_go(state: Any, desk: Any, kind: Any, outcome: str):
    for event in (asked(desk, evaluation_id="ev-1"), answered(desk, corrected="a better answer")):
        state.apply(event)
    review = state.projects["desk"].reviews.by_id[REVIEW]
    more = {"reasons": ("rejected",)} if kind is EvalFailed else {}
    for evaluation, ends in (("ev-0", False), ("ev-1", True)):
        fields = desk.verdict(passed=True, evaluation_id=evaluation)
        state.apply(desk.say(kind.type, **fields, **more))
        assert (review.outcome == outcome) is ends
    assert not review.answers
    assert review.preferences_of("ann") == {"better": 1}, "how often is still known"
    state.apply(answered(desk, "i-2"))
    assert not review.waits_for("bob")


def test_a_model_that_is_taken_out_cancels_its_review(state: Any, desk: Any):
    state.apply(desk.promoted(Stage.RETIRED))  # long before
    state.apply(asked(desk))
    review = state.projects["desk"].reviews.by_id[REVIEW]
    assert review.outcome is None
    state.apply(
        desk.of_model("model.rolledback", from_stage="evaluated", restored=None, cause="c", reason="r")
    )
    assert review.outcome == "cancelled: the model was rolled back"


def test_a_refused_submission_is_taken_back(state: Any, desk: Any):
    said = submitted(desk)
    for event in (asked(desk), answered(desk), said):
        state.apply(event)
    state.refuse(said)
    review = state.projects["desk"].reviews.by_id[REVIEW]
    assert review.waits_for("ann")
    state.apply(said)
    assert review.waits_for("ann"), "it is read again after a restart"


def test_it_is_told_apart_from_a_review_of_the_scorecard(state: Any, desk: Any):
    state.apply(asked(desk))
    project = state.projects["desk"]
    assert not project.pending_reviews
    assert len(project.reviews.waiting) == 1
    state.apply(submitted(desk))
    assert not project.pending_reviews


def test_a_run_that_is_judged_again_waits_for_the_same_review(make_state: Any, desk: Any):
    first, second = asked(desk, evaluation_id="ev-1"), asked(desk, evaluation_id="ev-2")
    for order, evaluation in itertools.product(((first, second), (second, first)), ("ev-1", "ev-2")):
        state = make_state()
        for event in order:
            state.apply(event)
        review = state.projects["desk"].reviews.by_id[REVIEW]
        assert (review.request, review.outcome) == (first, None)
        state.apply(desk.passed(evaluation_id=evaluation))
        assert review.outcome == "passed"


def test_what_happened_before_the_request_does_not_end_it(state: Any, desk: Any):
    """A run is judged again: the verdict of before is of another evaluation, or older than the request."""
    failed = desk.failed()
    state.apply(failed)
    request = asked(desk)
    state.apply(new_event(request.data, source="/test", time=failed.time + timedelta(seconds=1)))
    assert state.projects["desk"].reviews.by_id[REVIEW].outcome is None

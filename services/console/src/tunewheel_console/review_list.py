"""Lists the reviews of answers."""

from __future__ import annotations

from tunewheel_runtime.identity.roles import Caller, Role

from tunewheel_console.queue_list import Line
from tunewheel_console.refusals import reviewer_of
from tunewheel_console.review_state import Review
from tunewheel_console.state import ConsoleState

TITLES = ("Waiting for you", "Submitted or ended")


async def review_lines(state: ConsoleState, caller: Caller) -> list[Line]:
    """Return the reviews that ``caller`` may answer."""
    reviewer = "" if caller.principal is None else reviewer_of(caller, None)
    return [
        Line(
            name=f"{project.name} {review_id}",
            path=f"reviews/{project.name}/{review_id}",
            told=_told(review, reviewer),
            waits=review.waits_for(reviewer),
        )
        for project in state.projects.values()
        if caller.may(Role.REVIEWER, project.name)
        for review_id, review in project.reviews.by_id.items()
        if review.request is not None
    ]


def _told(review: Review, reviewer: str) -> str:
    assert review.request is not None
    asked = review.request.data
    done = review.outcome or f"{len(review.submitters)} of {asked.reviewers or 1} people submitted"
    answered = review.preferences_of(reviewer).total()
    return f"you answered {answered}, of {asked.items} items in all; {done}"

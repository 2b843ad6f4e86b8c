"""A review by three people on a real broker: eval is killed in the middle, and everything counts once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.evaluation import ReviewAnswered, ReviewRequested, ReviewSubmitted
from tunewheel_contracts.formats.review import ReviewItem, ReviewSet
from tunewheel_contracts.formats.spec import ReviewSpec
from tunewheel_eval.main import make_app
from tunewheel_eval.reviewing.cases import Cases, ReviewCase, review_id_of
from tunewheel_eval.settings import Settings
from tunewheel_runtime.store import ObjectStore

from .bus import Bus, running
from .verdicts import passed

pytestmark = pytest.mark.integration

ITEMS, PEOPLE = 6, ("ada", "bob", "eve")


async def asked(store: ObjectStore, project: str, **rule: Any) -> Envelope[ReviewRequested]:
    """Ask for a review as eval does after a pass."""
    verdict, cases = passed(project, 1).data, Cases(store)
    review_id = review_id_of(project, verdict.run_id)
    items = tuple(
        ReviewItem.model_validate(
            {
                "item_id": f"item-{n}", "example_id": f"ex-{n}", "expected": "yes", "stratum": "all",
                "candidate": "yes", "other": "no", "messages": [{"role": "user", "content": f"question {n}"}],
            }
        )
        for n in range(ITEMS)
    )  # fmt: skip
    names = {"review_id": review_id, "project": project, "run_id": verdict.run_id, "evaluation_id": None}
    spec = ReviewSpec(required=True, reviewers=len(PEOPLE), per_item=len(PEOPLE), **rule)
    reviewed = ReviewSet(
        **names, candidate_id=verdict.adapter.model_id, other_id="base", items=items,
        reviewers=spec.reviewers, per_item=spec.per_item,
    )  # fmt: skip
    _, ref = await cases.open(reviewed)
    values = verdict.model_dump(exclude={"principal", "reviewed_by", "review"}) | {"review_id": review_id}
    request = ReviewRequested.model_validate({**values, "review_set": ref, "items": ITEMS, "reviewers": 3})
    await cases.keep(ReviewCase(requested=request, rule=spec, drawn=tuple(item.item_id for item in items)))
    return new_event(request, source="/tunewheel/eval")


def answer(asked: ReviewRequested, name: str, n: int, **changes: Any) -> Envelope[ReviewAnswered]:
    plain = {
        "project": asked.project, "run_id": asked.run_id, "review_id": asked.review_id, "reviewer": name,
        "item_id": f"item-{n}", "preference": "better" if n else "same",
    }  # fmt: skip
    return new_event(ReviewAnswered.model_validate({**plain, **changes}), source="/test")


def submit(asked: ReviewRequested, name: str) -> Envelope[ReviewSubmitted]:
    plain = {"project": asked.project, "run_id": asked.run_id, "review_id": asked.review_id, "reviewer": name}
    return new_event(ReviewSubmitted.model_validate({**plain, "verdict": "approved"}), source="/test")


async def test_three_people_review_and_eval_is_started_anew_in_between(
    kafka: str, tmp_path: Path, project: str
) -> None:
    settings = Settings(
        bootstrap_servers=kafka, store_url=(tmp_path / "store").as_uri(), cache_dir=tmp_path / "cache"
    )

    def ours(event: Envelope[Any]) -> bool:
        return event.project == project

    request = await asked(ObjectStore(settings.store_url), project)
    data = request.data
    async with Bus(kafka) as bus:
        async with running(make_app(settings)):
            await bus.publish(request, submit(data, "ada"))  # out of order: nothing is answered yet
            (early,) = await bus.dead_letters("review.submitted", 1, about=project)
            await bus.publish(*[answer(data, name, n) for name in PEOPLE[:2] for n in range(ITEMS)])
            await bus.publish(answer(data, "ada", 99), submit(data, "ada"), submit(data, "bob"))
            (unknown,) = await bus.dead_letters("review.answered", 1, about=project)
        async with running(make_app(settings)):
            corrected = answer(data, "eve", 1, corrected="no, never")
            await bus.publish(*[answer(data, "eve", n) for n in range(ITEMS) if n != 1], corrected)
            last = submit(data, "eve")
            await bus.publish(last, replace(last, source="/delivered-again"), submit(data, "ada"))
            verdicts = await bus.collect(topics.EVAL_PASSED, 2, where=ours)
            examples = await bus.collect(topics.EXAMPLE_PUBLISHED, 2, where=ours)
    assert (early.field, "lack 6 items" in early.reason) == ("answers", True)
    assert (unknown.field, b"item-99" in unknown.value) == ("item_id", True)
    outcome = verdicts[0].data.review
    assert (outcome.reviewers, outcome.answers, outcome.better, outcome.same) == (3, 18, 15, 3)
    assert outcome.alpha == 1.0
    assert verdicts[0].causation_id == last.id
    assert {one.id for one in verdicts} == {verdicts[0].id}
    assert {(one.id, one.data.output, one.data.validated_by) for one in examples} == {
        (examples[0].id, "no, never", "eve")
    }

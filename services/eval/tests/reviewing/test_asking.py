"""When people are asked, what they are shown, and how long what they decided holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiokafka import TopicPartition
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalUndecided, ReviewRequested
from tunewheel_eval.reviewing.asking import Notices, ask, notice_of
from tunewheel_eval.reviewing.cases import Cases
from tunewheel_eval.reviews import settle
from tunewheel_eval.settings import Settings
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.webhooks import Notice, Webhook


async def test_a_pass_waits_for_people_who_are_shown_a_set(open_review: Any, store: ObjectStore) -> None:
    desk = await open_review(sample=4, reviewers=2)
    requested, reviewed = desk.requested, desk.reviewed
    assert (requested.items, requested.reviewers) == (4, 2)
    assert len(reviewed.items) == 4
    assert (reviewed.run_id, reviewed.candidate_id, reviewed.other_id) == ("run-1", "desk-run-1", "base")
    assert (reviewed.reviewers, reviewed.per_item) == (2, 1)
    assert {(item.candidate, item.other) for item in reviewed.items} == {("candidate's", "base's")}
    assert requested.review_set is not None
    await store.get(requested.review_set)  # verified


async def test_a_redelivery_asks_for_the_same_also_after_the_decision(
    judge: Any, open_review: Any, store: ObjectStore
) -> None:
    desk = await open_review()
    for _ in range(2):
        assert await ask(store, await judge()) == desk.requested
        desk.answer_all("ada")
        await desk.submit("ada")


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        ({"required": False}, EvalPassed),
        ({"required": False, "passed": False}, EvalFailed),
        ({"required": True, "passed": False}, EvalFailed),
        ({"required": False, "passed": False, "override": True}, ReviewRequested),
        ({"required": True, "override": True}, ReviewRequested),
    ],
)
async def test_people_are_asked_where_the_spec_says_so(
    judge: Any, store: ObjectStore, rule: dict[str, Any], kind: type
) -> None:
    assert isinstance(await ask(store, await judge(**rule)), kind)


async def test_an_undecided_criterion_can_be_overridden_too(judge: Any, store: ObjectStore) -> None:
    failed = await judge(passed=False, override=True, required=False)
    undecided = EvalUndecided.model_validate(failed.model_dump() | {"reasons": ("too few",)})
    assert isinstance(await ask(store, undecided), ReviewRequested)


async def test_nobody_is_asked_about_a_candidate_that_was_not_measured(
    judge: Any, store: ObjectStore
) -> None:
    failed = await judge(passed=False, override=True)
    broken = failed.model_copy(update={"checks": (), "field": "adapter"})
    assert await ask(store, broken) == broken


async def test_an_approval_holds_for_later_evaluations_that_pass(
    judge: Any, open_review: Any, store: ObjectStore
) -> None:
    desk = await open_review()
    desk.answer_all("ada")
    await desk.submit("ada")
    later = await ask(store, await judge(evaluation="two"))
    assert isinstance(later, EvalPassed)
    assert later.scorecard != desk.requested.scorecard
    assert (later.reviewed_by, later.review is not None) == ("ada", True)
    assert isinstance(await ask(store, await judge(evaluation="three", passed=False)), EvalFailed)


async def test_an_override_holds_for_the_criteria_that_it_passed_over(
    judge: Any, open_review: Any, store: ObjectStore
) -> None:
    rule = {"required": False, "override": True, "passed": False}
    desk = await open_review(**rule)
    desk.answer_all("ada")
    await desk.submit("ada", comment="good all the same")
    failed = await judge(evaluation="two", **rule)
    assert isinstance(await ask(store, failed), EvalPassed)
    criterion = failed.checks[0].criterion.model_copy(update={"metric": "perplexity"})
    other = failed.checks[0].model_copy(update={"criterion": criterion})
    worse = failed.model_copy(update={"checks": (*failed.checks, other)})
    assert await ask(store, worse) == worse


async def test_what_people_refused_stays_refused(judge: Any, open_review: Any, store: ObjectStore) -> None:
    desk = await open_review()
    await desk.submit("ada", "rejected", comment="rude")
    later = await ask(store, await judge(evaluation="two"))
    assert isinstance(later, EvalFailed)
    assert (later.field, later.reasons) == ("review", ("rejected by ada: rude",))


async def test_a_later_evaluation_asks_for_the_review_that_is_under_way(
    judge: Any, open_review: Any, store: ObjectStore
) -> None:
    desk = await open_review()
    later = await ask(store, await judge(evaluation="two"))
    assert isinstance(later, ReviewRequested)
    assert (later.review_id, later.review_set) == (desk.requested.review_id, desk.requested.review_set)
    assert later.scorecard != desk.requested.scorecard


async def test_a_run_that_was_decided_without_a_set_is_not_asked_about_again(
    judge: Any, open_review: Any, store: ObjectStore
) -> None:
    """As a release before review sets left it."""
    asked = await judge()
    desk = await open_review(run_id="run-2")
    approval = desk.review("ada", run_id="run-1", review_id=None)

    async def anybody(_: Any) -> None: ...

    passed = await settle(store, approval, check=anybody)
    assert await ask(store, asked) == asked
    assert await Cases(store).read_set("review-none") is None
    assert list(await desk.reviews.settle(approval)) == [passed]


async def test_figures_decide_where_every_output_was_erased(judge: Any, store: ObjectStore) -> None:
    verdict = await judge()
    await store.delete([path for path in await store.list("scorecards") if ".generations-" in path])
    assert await ask(store, verdict) == verdict


class Telling(Webhook):
    """Notes whom it told."""

    def __init__(self) -> None:
        super().__init__(hosts=(), secret="")
        self.told: list[str] = []

    async def tell(self, notice: Notice, url: str) -> bool:
        self.told.append(url)
        return True


async def test_only_a_review_that_waits_is_told_and_only_to_whom_its_spec_names(open_review: Any) -> None:
    url, lease = "https://hooks.example.com/", Lease(TopicPartition("review.requested", 0))
    desk = await open_review(webhook=url)
    quiet = await open_review(run_id="run-2")
    telling = Telling()
    notices = Notices(desk.store, telling, Settings())
    for requested in (quiet.requested, desk.requested, desk.requested.model_copy(update={"review_id": None})):
        await notices.tell(new_event(requested, source="/test"), lease)
    assert telling.told == [url]
    await desk.submit("ada", "rejected")
    await notices.tell(new_event(desk.requested, source="/test"), lease)
    assert telling.told == [url]


async def test_ids_and_counts_are_told_and_no_customer_s_word(open_review: Any) -> None:
    desk = await open_review()
    event = new_event(desk.requested, source="/tunewheel/eval")
    body = notice_of(event, page=Settings(console_url="https://console/").page("reviews/desk/r")).body()
    told = json.loads(body)
    assert (told["type"], told["subject"]) == ("review.waiting", "run-1")
    assert told["data"] == {
        "project": "desk", "run_id": "run-1", "review_id": event.data.review_id, "items": 6, "reviewers": 1,
        "url": "https://console/reviews/desk/r",
    }  # fmt: skip
    assert b"parcel" not in body

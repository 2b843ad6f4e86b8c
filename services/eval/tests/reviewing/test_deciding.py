"""What submissions decide: quorum, preference, rejection, override; and each that must not count."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed
from tunewheel_contracts.events.upstream import ExamplePublished
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_eval.reviewing.answers import Answers
from tunewheel_eval.reviewing.cases import set_path
from tunewheel_runtime.store import ObjectStore


async def refused(doing: Any) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        await doing
    return caught.value


async def test_a_review_is_decided_by_the_last_of_those_who_were_asked(open_review: Any) -> None:
    desk = await open_review(reviewers=3, per_item=3)
    for name in ("ada", "bob", "eve"):
        desk.answer_all(name)
    assert list(await desk.submit("ada")) == []
    assert list(await desk.submit("bob")) == []
    (passed,) = await desk.submit("eve")
    assert isinstance(passed, EvalPassed)
    assert passed.review is not None
    assert (passed.reviewed_by, passed.review.reviewers, passed.review.answers) == ("eve", 3, 18)
    assert (passed.scorecard, passed.checks) == (desk.requested.scorecard, desk.requested.checks)
    # Delivered again, each says again what it said.
    assert list(await desk.submit("ada")) == []
    assert list(await desk.submit("eve")) == [passed]


async def test_a_decision_survives_a_crash_at_every_step(
    open_review: Any, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await open_review(reviewers=1)
    desk.answer_all("ada")

    async def die(path: str, data: bytes) -> bytes:
        await ObjectStore.first(store, path, data)
        raise ConnectionError(f"killed after {path}")

    monkeypatch.setattr(store, "first", die)
    for step in ("submitted", "decided"):
        with pytest.raises(ConnectionError, match=step):
            await desk.submit("ada")
    (passed,) = await desk.submit("ada")
    assert isinstance(passed, EvalPassed)
    assert passed.event_id() == (await desk.submit("ada"))[0].event_id()


async def test_a_new_process_decides_alike_from_the_log(open_review: Any) -> None:
    desk = await open_review()
    desk.answer_all("ada", "same")
    (passed,) = await desk.submit("ada")
    desk.answers = Answers()  # the store holds what was decided
    assert list(await desk.submit("ada")) == [passed]


async def test_a_rejection_suffices_at_once_and_is_final(open_review: Any) -> None:
    desk = await open_review(reviewers=3, per_item=1)
    desk.answer("ada", preference="worse", reasons=["facts"])
    (failed,) = await desk.submit("ada", "rejected", comment=" promises refunds ")
    assert isinstance(failed, EvalFailed)
    assert failed.review is not None
    assert (failed.field, failed.reasons) == ("review", ("rejected by ada: promises refunds",))
    assert (failed.review.answers, failed.review.worse, failed.review.reasons) == (1, 1, {"facts": 1})
    assert list(await desk.submit("ada", "rejected", comment=" promises refunds ")) == [failed]
    assert list(await desk.submit("bob", "rejected")) == [failed]
    desk.answer_all("bob")
    why = await refused(desk.submit("bob"))
    assert (why.field, "ada rejected" in why.reason) == ("verdict", True)


async def test_of_a_comment_as_long_as_a_book_a_verdict_repeats_the_beginning(open_review: Any) -> None:
    desk = await open_review(reviewers=1)
    desk.answer("ada", preference="worse")
    (failed,) = await desk.submit("ada", "rejected", comment="no " * 300_000)
    assert isinstance(failed, EvalFailed)
    assert failed.reasons[0].endswith("… (the whole comment is in review.submitted)")
    assert failed.reasons[0].startswith("rejected by ada: no no")
    assert len(failed.reasons[0]) < 600
    assert failed.review is not None
    assert len(failed.review.comments[0]) < 10_100


async def test_a_rejection_comes_after_an_approval_and_outranks_it(open_review: Any) -> None:
    desk = await open_review()
    desk.answer_all("ada")
    approval = await desk.submit("ada")
    (failed,) = await desk.submit("ada", "rejected")
    assert isinstance(failed, EvalFailed)
    assert list(await desk.submit("ada")) == list(approval)


@pytest.mark.parametrize(
    ("preference", "wanted", "passes"),
    [("better", 0.5, True), ("same", 0.5, False), ("worse", 0.01, False), ("worse", 0.0, True)],
)
async def test_the_lower_end_of_the_preference_has_to_reach_what_the_spec_asks_for(
    open_review: Any, preference: str, wanted: float, passes: bool
) -> None:
    desk = await open_review(min_preference=wanted)
    desk.answer_all("ada", preference)
    (verdict,) = await desk.submit("ada")
    assert isinstance(verdict, EvalPassed if passes else EvalFailed)
    if isinstance(verdict, EvalFailed):
        assert verdict.field == "review.min_preference"
        assert f"{wanted:.0%}" in verdict.reasons[0]
    assert list(await desk.submit("ada")) == [verdict]


@pytest.mark.parametrize(
    ("letters", "passes"),
    [("wwwwww", False), ("wwwwsw", False), ("wwssss", True), ("wbwbsw", True), ("ssssss", True)],
)
async def test_without_a_rule_answers_that_prefer_the_other_model_reject_in_spite_of_approvals(
    open_review: Any, letters: str, passes: bool
) -> None:
    desk = await open_review()
    desk.answer_each("ada", letters)
    (verdict,) = await desk.submit("ada")
    assert isinstance(verdict, EvalPassed if passes else EvalFailed)
    assert verdict.review is not None
    assert passes == (verdict.review.preference_high >= 0.5)


@pytest.mark.parametrize(
    ("letters", "passes"), [("bbbbbb", True), ("bbbbsb", True), ("bbbwww", False), ("ssssss", False)]
)
async def test_an_override_needs_answers_that_prefer_the_candidate(
    open_review: Any, letters: str, passes: bool
) -> None:
    desk = await open_review(passed=False, override=True, required=False)
    desk.answer_each("ada", letters)
    (verdict,) = await desk.submit("ada", comment="ok")
    assert isinstance(verdict, EvalPassed if passes else EvalFailed)


async def test_an_approval_overrides_a_missed_criterion_only_with_a_comment(open_review: Any) -> None:
    desk = await open_review(passed=False, override=True, required=False)
    desk.answer_all("ada")
    assert (await refused(desk.submit("ada"))).field == "comment"
    (passed,) = await desk.submit("ada", comment="the metric counts a synonym as wrong")
    assert isinstance(passed, EvalPassed)
    assert [check.passed for check in passed.checks] == [False]
    assert passed.review is not None
    assert passed.review.overrides == ("rouge_l",)
    assert passed.review.comments == ("the metric counts a synonym as wrong",)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({}, "answers", "lack 6 items"),
        ({"review_id": "review-of-another"}, "review_id", "is no review of run"),
        ({"run_id": "run-unknown"}, "review_id", "is no review of run"),
        ({"project": "shop"}, "review_id", "is no review of run"),
        ({"principal": {"name": "mallory"}}, "principal", "reviewer"),
        ({"principal": None}, "principal", "reviewer"),
    ],
)
async def test_a_submission_that_cannot_count_is_refused_and_can_be_sent_again(
    open_review: Any, changes: dict[str, Any], field: str, words: str
) -> None:
    desk = await open_review()
    why = await refused(desk.submit("ada", **changes))
    assert (why.field, words in why.reason) == (field, True)
    desk.answer_all("ada")
    assert isinstance((await desk.submit("ada"))[0], EvalPassed)


async def test_an_approval_without_answers_counts_only_where_one_verdict_is_asked(open_review: Any) -> None:
    desk = await open_review(reviewers=2)
    assert (await refused(desk.submit("ada", review_id=None))).field == "review_id"
    (failed,) = await desk.submit("ada", "rejected", review_id=None)
    assert isinstance(failed, EvalFailed)
    alone = await open_review(run_id="run-2")
    (passed,) = await alone.submit("ada", review_id=None)
    assert isinstance(passed, EvalPassed)
    assert passed.review is None


async def test_one_person_counts_once_however_they_sign(open_review: Any) -> None:
    desk = await open_review(reviewers=2, per_item=2)
    desk.answer_all("ada")
    assert list(await desk.submit("ada")) == []
    assert list(await desk.submit("ada", reviewer="Ada of the desk")) == []
    desk.answer_all("bob")
    assert len(await desk.submit("bob")) == 1
    desk.answer_all("eve")
    why = await refused(desk.submit("eve"))
    assert (why.field, "decided already" in why.reason) == ("review_id", True)


async def test_each_of_several_answers_their_share(open_review: Any) -> None:
    desk = await open_review(reviewers=3, per_item=1)
    desk.answer("ada", 0)
    assert "lack 1 items" in (await refused(desk.submit("ada"))).reason
    desk.answer("ada", 1)
    assert list(await desk.submit("ada")) == []


async def test_a_verdict_names_a_later_approver_where_the_first_lost_the_role(open_review: Any) -> None:
    desk = await open_review()
    for name in ("ada", "bob"):
        desk.answer_all(name)
    await desk.submit("ada")
    desk.reviewers.remove("ada")
    assert (await desk.submit("ada"))[0].reviewed_by == "ada"
    assert (await desk.submit("bob"))[0].reviewed_by == "bob"


async def test_the_newest_revision_counts_in_whatever_order_they_come(open_review: Any) -> None:
    desk = await open_review()
    desk.answer_all("ada", "worse")
    desk.answer_all("ada", "better", revision=3)
    desk.answer_all("ada", "same", revision=2)
    desk.answer("ada", preference="splendid", revision=4)
    (passed,) = await desk.submit("ada")
    assert passed.review is not None
    assert (passed.review.better, passed.review.answers) == (6, 6)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"item_id": "item-unknown"}, "item_id"),
        ({"preference": "splendid"}, "preference"),
        ({"review_id": "review-other"}, "review_id"),
        ({"run_id": "run-other"}, "review_id"),
        ({"principal": {"name": "mallory"}}, "principal"),
    ],
)
async def test_an_answer_that_cannot_count_is_refused(
    open_review: Any, changes: dict[str, Any], field: str
) -> None:
    desk = await open_review()
    await desk.reviews.accept(desk.answer("ada"))
    assert (await refused(desk.reviews.accept(desk.answer("ada", **changes)))).field == field


async def test_an_answer_to_an_unknown_item_fills_no_gap_and_stays_refused(open_review: Any) -> None:
    desk = await open_review()
    for n in range(5):
        desk.answer("ada", n)
    unknown = desk.answer("ada", item_id="item-unknown")
    assert "lack 1 items" in (await refused(desk.submit("ada"))).reason
    desk.answer("ada", 5)
    (passed,) = await desk.submit("ada")
    assert passed.review.answers == 6
    assert (await refused(desk.reviews.accept(unknown))).field == "item_id"


async def test_an_answer_after_the_submission_is_refused_and_one_from_before_it_is_not(
    open_review: Any,
) -> None:
    desk = await open_review(reviewers=2, per_item=2)
    early = desk.answer("ada")
    desk.answer_all("ada", revision=2)
    await desk.submit("ada")
    await desk.reviews.accept(early)  # read late
    late = desk.answer("ada", revision=3)
    assert "was submitted by ada before" in (await refused(desk.reviews.accept(late))).reason
    await desk.submit("bob", "rejected")
    over = await refused(desk.reviews.accept(desk.answer("eve")))
    assert (over.field, "final" in over.reason) == ("review_id", True)


async def test_an_answer_to_a_decided_review_is_refused(open_review: Any) -> None:
    desk = await open_review()
    desk.answer_all("ada")
    await desk.submit("ada")
    assert "decided already" in (await refused(desk.reviews.accept(desk.answer("bob")))).reason


async def test_corrections_are_published_once_the_review_is_decided(open_review: Any) -> None:
    desk = await open_review(reviewers=2, per_item=2)
    for name in ("ada", "bob"):
        desk.answer_all(name)
    desk.answer("ada", 0, corrected=" as it should be ", revision=2)
    desk.answer("ada", 1, corrected=desk.reviewed.items[1].expected, revision=2)
    assert list(await desk.submit("ada")) == []
    verdict, corrected = await desk.submit("bob")
    assert isinstance(verdict, EvalPassed)
    assert isinstance(corrected, ExamplePublished)
    item = desk.reviewed.items[0]
    assert (corrected.input, corrected.output) == (item.messages[-1].content, "as it should be")
    assert (corrected.messages, corrected.validated_by, corrected.authority) == ((), "ada", "expert")
    assert corrected.attributes == {"corrected_in_review": desk.reviewed.review_id}
    assert list(await desk.submit("bob")) == [verdict, corrected]


@pytest.mark.parametrize("turns", [0, 1, 250], ids=["no_question", "blank", "too_long"])
async def test_a_prompt_that_no_example_can_have_does_not_cost_the_verdict(
    open_review: Any, store: ObjectStore, turns: int
) -> None:
    desk = await open_review()
    desk.answer_all("ada", corrected="as it should be", revision=2)
    prompt = (ChatMessage(role="system", content="s"), *[ChatMessage(role="user", content="")] * turns)
    odd = desk.reviewed.items[0].model_copy(update={"messages": prompt})
    changed = desk.reviewed.model_copy(update={"items": (odd, *desk.reviewed.items[1:])})
    await store.replace(set_path(desk.reviewed.review_id), changed.model_dump_json().encode())
    passed, *corrected = await desk.submit("ada")
    assert isinstance(passed, EvalPassed)
    assert len(corrected) == len(desk.reviewed.items) - 1

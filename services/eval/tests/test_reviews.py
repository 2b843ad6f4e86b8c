"""A person's verdict: approval, rejection, repeats, contradictions, strangers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, ReviewRequested, ReviewSubmitted
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_eval.plan import make_plan, pin, read_manifest
from tunewheel_eval.reviews import settle
from tunewheel_eval.scorecards import verdict_of
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.specs import spec_of

Evaluated = Callable[..., Any]


@pytest.fixture
def evaluated(make_run: Callable[..., Awaitable[TrainCompleted]], store: ObjectStore) -> Evaluated:
    """An evaluated run, as the store holds it."""

    async def put(*, passed: bool = True, required: bool = True, judged: bool = True) -> EvaluationPlan:
        name = f"{required}".lower()
        event = await make_run(
            spec_of(f"desk-{name}", review={"required": required}),
            run_id=f"run-{name}",
            dataset_id=f"ds-{name}",
        )
        manifest = await read_manifest(store, event.dataset)
        plan = await pin(store, make_plan(event, manifest, None, regression=event.dataset))
        if judged:
            await store.put(plan.scorecard_path, scorecard(plan, passed).model_dump_json().encode())
        return plan

    return put


def scorecard(plan: EvaluationPlan, passed: bool) -> Scorecard:
    return Scorecard(
        scorecard_id=plan.scorecard_id, project=plan.project, run_id=plan.run_id,
        model_id=plan.adapter.model_id, dataset_id=plan.dataset_id, criteria_sha256=plan.criteria_sha256,
        contestants=(), comparisons=(), checks=(), passed=passed,
        field=None if passed else "adapter", reason=None if passed else "is broken",
    )  # fmt: skip


def review(plan: EvaluationPlan, verdict: str = "approved", **changes: Any) -> ReviewSubmitted:
    plain = {"project": plan.project, "run_id": plan.run_id, "reviewer": "ada", "verdict": verdict}
    return ReviewSubmitted.model_validate({**plain, **changes})


class Desk:
    """Who may review now."""

    def __init__(self, *names: str) -> None:
        self.reviewers = set(names)

    async def check(self, review: ReviewSubmitted) -> None:
        if review.principal is None or review.principal.name not in self.reviewers:
            raise InvalidEvent(field="principal", reason="lacks the role reviewer")


async def anybody(_: ReviewSubmitted) -> None:
    """Where identity is open."""


async def decide(store: ObjectStore, review: ReviewSubmitted, desk: Desk | None = None) -> Any:
    return await settle(store, review, check=desk.check if desk else anybody)


def signed(plan: EvaluationPlan, name: str, verdict: str = "approved") -> ReviewSubmitted:
    return review(plan, verdict, reviewer=f"{name} of the desk", principal={"name": name})


async def test_automated_verdict_waits_only_where_it_passed_and_review_is_asked_for(
    evaluated: Evaluated,
) -> None:
    plan, free = await evaluated(judged=False), await evaluated(judged=False, required=False)
    ref = plan.dataset
    assert isinstance(verdict_of(plan, scorecard(plan, True), ref), ReviewRequested)
    assert isinstance(verdict_of(free, scorecard(free, True), ref), EvalPassed)
    failed = verdict_of(plan, scorecard(plan, False), ref)
    assert isinstance(failed, EvalFailed)
    assert (failed.field, failed.reasons) == ("adapter", ("adapter: is broken",))


async def test_approval_lets_the_pass_through(evaluated: Evaluated, store: ObjectStore) -> None:
    plan = await evaluated()
    verdict = await decide(store, review(plan))
    assert isinstance(verdict, EvalPassed)
    assert (verdict.run_id, verdict.reviewed_by) == (plan.run_id, "ada")
    assert verdict.scorecard.path == plan.scorecard_path
    assert await decide(store, review(plan)) == verdict
    assert await decide(store, review(plan, reviewer="bob")) == verdict


async def test_rejection_fails_the_run_for_good(evaluated: Evaluated, store: ObjectStore) -> None:
    plan = await evaluated()
    rejected = review(plan, "rejected", comment=" promises refunds ")
    verdict = await decide(store, rejected)
    assert isinstance(verdict, EvalFailed)
    assert verdict.reasons == ("rejected by ada: promises refunds",)
    assert (verdict.field, verdict.reviewed_by) == ("review", "ada")
    with pytest.raises(InvalidEvent, match=r"ada rejected run .* final") as caught:
        await decide(store, review(plan, reviewer="bob"))
    assert caught.value.field == "verdict"
    assert await decide(store, rejected) == verdict


async def test_rejection_outranks_an_approval_that_came_first(
    evaluated: Evaluated, store: ObjectStore
) -> None:
    plan = await evaluated()
    approval = await decide(store, review(plan))
    assert isinstance(await decide(store, review(plan, "rejected", reviewer="bob")), EvalFailed)
    # Delivered again, the approval says again what it said: the log's order decides, not the store's.
    assert await decide(store, review(plan)) == approval


@pytest.mark.parametrize(
    ("state", "changes", "complaint"),
    [
        ({}, {"run_id": "run-unknown"}, "names no evaluated run"),
        ({}, {"project": "stranger"}, "names no evaluated run"),
        ({"required": False}, {}, "asks for no review"),
        ({"passed": False}, {}, "failed its criteria"),
        ({"judged": False}, {}, "not judged yet"),
    ],
)
async def test_review_of_what_waits_for_none_is_refused(
    evaluated: Evaluated, store: ObjectStore, state: dict[str, Any], changes: dict[str, Any], complaint: str
) -> None:
    plan = await evaluated(**state)
    with pytest.raises(InvalidEvent, match=complaint) as caught:
        await decide(store, review(plan, **changes))
    assert caught.value.field == "run_id"


@pytest.mark.parametrize("verdict", ["approved", "rejected"])
async def test_a_review_by_somebody_without_the_role_decides_nothing(
    evaluated: Evaluated, store: ObjectStore, verdict: str
) -> None:
    plan, desk = await evaluated(), Desk("ada")
    for stranger in (signed(plan, "eve", verdict), review(plan, verdict)):
        with pytest.raises(InvalidEvent) as caught:
            await decide(store, stranger, desk)
        assert caught.value.field == "principal"
    decided = await decide(store, signed(plan, "ada", verdict), desk)
    assert decided.principal is not None
    assert (decided.principal.name, decided.reviewed_by) == ("ada", "ada of the desk")


@pytest.mark.parametrize("verdict", ["approved", "rejected"])
async def test_a_review_that_was_accepted_holds_when_its_reviewer_may_not_review_any_more(
    evaluated: Evaluated, store: ObjectStore, verdict: str
) -> None:
    plan, desk = await evaluated(), Desk("ada")
    decided = await decide(store, signed(plan, "ada", verdict), desk)
    desk.reviewers.clear()
    assert await decide(store, signed(plan, "ada", verdict), desk) == decided


async def test_an_accepted_rejection_stays_final_without_its_reviewer(
    evaluated: Evaluated, store: ObjectStore
) -> None:
    plan, desk = await evaluated(), Desk("ada", "bob")
    await decide(store, signed(plan, "ada", "rejected"), desk)
    desk.reviewers.remove("ada")
    with pytest.raises(InvalidEvent, match="final"):
        await decide(store, signed(plan, "bob"), desk)


@pytest.mark.parametrize("verdict", ["approved", "rejected"])
async def test_a_verdict_names_whoever_agrees_once_the_first_may_not_review_any_more(
    evaluated: Evaluated, store: ObjectStore, verdict: str
) -> None:
    """The registry takes no verdict of the first: it may have been down when he decided."""
    plan, desk = await evaluated(), Desk("ada", "bob")
    await decide(store, signed(plan, "ada", verdict), desk)
    assert (await decide(store, signed(plan, "bob", verdict), desk)).reviewed_by == "ada of the desk"
    desk.reviewers.remove("ada")
    assert (await decide(store, signed(plan, "bob", verdict), desk)).reviewed_by == "bob of the desk"

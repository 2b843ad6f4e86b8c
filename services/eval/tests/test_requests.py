"""Judging a run again: who may ask, against whom, by which criteria, and what comes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalRequested, EvalUndecided
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_contracts.formats.scorecard import CriterionCheck, Scorecard
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_eval.judges.judged import ReviewedPairs
from tunewheel_eval.passages.looking_up import LookUp
from tunewheel_eval.plan import make_plan, pin, read_manifest, read_plans
from tunewheel_eval.requests import Asked, Versions, plan_again
from tunewheel_eval.scorecards import verdict_of
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.datasets import put_dataset, versioned

from .conftest import make_spec

SET = ArtifactRef(path="regression/set.jsonl", sha256="1" * 64, size_bytes=1)
OTHERS = [{"metric": "valid_output", "minimum": 0.5}]
EVE = {"name": "eve", "issuer": "keys"}
MakeRun = Callable[..., Awaitable[TrainCompleted]]


@pytest.fixture
async def run(make_run: MakeRun) -> TrainCompleted:
    return await make_run()


@pytest.fixture
async def first(run: TrainCompleted, store: ObjectStore) -> EvaluationPlan:
    return await pin(store, make_plan(run, await read_manifest(store, run.dataset), None, regression=SET))


async def operator(_: EvalRequested) -> None:
    """Whoever asks, may."""


async def stranger(_: EvalRequested) -> None:
    raise InvalidEvent(field="principal", reason="lacks the role operator")


def request(**changes: Any) -> EvalRequested:
    return EvalRequested.model_validate(
        {"project": "desk", "run_id": "run-1", "request": "once more", **changes}
    )


async def again(store: ObjectStore, asked: Asked) -> EvaluationPlan:
    plan, _ = await plan_again(
        store, asked, LookUp(store, AllowedSources()), ReviewedPairs(store), regression=SET
    )
    return plan


async def test_a_run_is_judged_against_whoever_is_in_production_when_the_request_is_read_first(
    first: EvaluationPlan, make_run: MakeRun, store: ObjectStore, serving: Callable[..., ServingDesired]
) -> None:
    newer, newest = [await make_run(run_id=f"run-{n}", dataset_id=f"ds-{n}") for n in (2, 3)]
    desired = serving(newer).model_copy(update={"spent": 0.04})
    plan = await again(store, Asked(request(), desired, operator))
    assert plan.champion is not None
    assert (plan.champion.adapter, plan.spent) == (newer.adapter, 0.04)
    assert plan.evaluation_id != first.evaluation_id
    # Delivered again, when somebody else serves and who asked has left.
    assert await again(store, Asked(request(), serving(newest), stranger)) == plan
    assert await read_plans(store, "run-1") == [first, plan]


async def built(store: ObjectStore, *names: str, **changes: Any) -> dict[str, DatasetVersioned]:
    """Put versions into the store; return them as eval knows them."""
    made = [await put_dataset(store, make_spec(**changes), dataset_id=name) for name in names]
    known = Versions()
    for _ in range(2):  # an event may come twice
        for one in made:
            known.apply(new_event(versioned(*one), source="/test"))
    return known.of("desk")


async def test_a_person_s_request_is_judged_by_the_newest_version_s_rows_and_the_registry_s_by_the_run_s(
    first: EvaluationPlan, store: ObjectStore
) -> None:
    versions = await built(store, "ds-2", "ds-3")
    plan = await again(store, Asked(request(), None, operator, versions=versions))
    assert (plan.rows_id, plan.rows_of, plan.rows) == ("ds-3", "ds-3", versions["ds-3"].manifest)
    assert (plan.dataset_id, plan.dataset, plan.informs) == (first.dataset_id, first.dataset, None)
    assert plan.criteria_sha256 == first.criteria_sha256
    named = Asked(request(dataset_id="ds-2"), None, operator, versions=versions)
    assert (await again(store, named)).rows_id == "ds-2"
    own = Asked(request(dataset_id="ds-1"), None, operator, versions=versions)
    assert await again(store, own) == first
    assert "rows" not in first.model_dump(mode="json")
    # delivered again, after another version was built
    versions |= await built(store, "ds-4")
    assert await again(store, Asked(request(), None, stranger, versions=versions)) == plan
    card = Scorecard(
        scorecard_id=first.scorecard_id, project="desk", run_id="run-1", model_id="m", dataset_id="ds-1",
        criteria_sha256=first.criteria_sha256, contestants=(), comparisons=(), checks=(), passed=True,
    )  # fmt: skip
    passed = verdict_of(first, card, first.dataset).event_id()
    assert await again(store, Asked(request(request=passed), None, stranger, versions=versions)) == first


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("ds-9", {}, "names no dataset version of 'desk'"),
        (None, {"task": {"system_prompt": "Be brief."}}, "has another task"),
        ("ds-2", {"task": {"system_prompt": "Be brief."}}, "name ds-1 to judge by the run's own rows"),
    ],
)
async def test_rows_of_a_version_that_is_not_there_or_has_another_task_are_refused(
    name: str | None, changes: dict[str, Any], reason: str, first: EvaluationPlan, store: ObjectStore
) -> None:
    versions = await built(store, "ds-2", **changes)
    with pytest.raises(InvalidEvent, match=reason) as caught:
        await again(store, Asked(request(dataset_id=name), None, operator, versions=versions))
    assert caught.value.field == "dataset_id"
    assert await read_plans(store, "run-1") == [first]


async def test_where_nobody_came_between_it_is_the_same_evaluation(
    first: EvaluationPlan, store: ObjectStore
) -> None:
    assert await again(store, Asked(request(), None, operator)) == first
    assert await again(store, Asked(request(request="twice"), None, operator)) == first


async def test_other_criteria_make_another_evaluation(first: EvaluationPlan, store: ObjectStore) -> None:
    plan = await again(store, Asked(request(criteria=OTHERS), None, operator))
    assert [one.metric for one in plan.criteria] == ["valid_output"]
    assert plan.criteria_sha256 != first.criteria_sha256


@pytest.mark.parametrize(
    ("passed", "outcome", "kind"),
    [(True, "met", EvalPassed), (False, "undecided", EvalUndecided), (False, "missed", EvalFailed)],
)
async def test_the_registry_asks_by_the_id_of_its_verdict_and_nobody_else_without_a_role(
    passed: bool, outcome: str, kind: type[Any], first: EvaluationPlan, store: ObjectStore
) -> None:
    check = CriterionCheck.model_validate(
        {"criterion": OTHERS[0], "observed": 0.5, "passed": passed, "reason": "so", "outcome": outcome}
    )
    card = Scorecard(
        scorecard_id=first.scorecard_id, project="desk", run_id="run-1", model_id="m", dataset_id="ds-1",
        criteria_sha256=first.criteria_sha256, contestants=(), comparisons=(), checks=(check,), passed=passed,
    )  # fmt: skip
    judged = verdict_of(first, card, first.dataset)
    assert isinstance(judged, kind)
    verdict, versions = judged.event_id(), await built(store, "ds-2")
    asked = Asked(request(request=verdict, against="gone"), None, stranger, versions=versions)
    if outcome == "missed":
        with pytest.raises(InvalidEvent, match="lacks the role operator"):
            await again(store, asked)
        return
    assert await again(store, asked) == first
    forged = (
        request(request=verdict, criteria=OTHERS),
        request(request=verdict, principal=EVE),
        request(request=str(first.evaluation_id)),
        request(request="1" * 8),
    )
    for one in forged:
        with pytest.raises(InvalidEvent, match="lacks the role operator"):
            await again(store, Asked(one, None, stranger))


async def test_what_a_person_asks_about_the_model_in_production_informs(
    first: EvaluationPlan, run: TrainCompleted, store: ObjectStore, serving: Callable[..., ServingDesired]
) -> None:
    plan = await again(store, Asked(request(), serving(run), operator))
    assert (plan.in_production, plan.informs is not None) == (True, True)
    assert (plan.champion, plan.criteria) == (None, ())
    assert plan.evaluation_id != first.evaluation_id
    # Once another serves, the same question has a verdict again.
    assert await again(store, Asked(request(request="later"), None, operator)) == first
    assert first.informs is None
    assert "in_production" not in first.model_dump(mode="json")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"run_id": "run-none"}, "run_id"),
        ({"project": "shop"}, "run_id"),
        ({"against": "desk-elsewhere"}, "against"),
        ({"criteria": [{"metric": "valid_output", "minimum": 0.5}]}, "criteria (task.output_schema)"),
    ],
)
async def test_a_request_that_cannot_be_met_is_refused_with_its_field(
    changes: dict[str, Any], field: str, make_run: MakeRun, store: ObjectStore
) -> None:
    free = {"project": "desk", "base_model": "tiny", "task": {"system_prompt": "s"}}
    spec = ProjectSpec.model_validate(free | {"criteria": [{"metric": "rouge_l", "minimum": 0}]})
    run = await make_run(spec)
    await pin(store, make_plan(run, await read_manifest(store, run.dataset), None, regression=SET))
    with pytest.raises(InvalidEvent) as caught:
        await again(store, Asked(request(**changes), None, operator))
    assert caught.value.field == field
    assert len(await read_plans(store, "run-1")) == 1
    assert await store.list("runs/run-1/requests") == []

"""The map of the eval service: finished runs, requests, reviews and erasures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.evaluation import (
    AnswersCompared,
    ComparisonsRequested,
    EvalRequested,
    ReviewAnswered,
    ReviewRequested,
    ReviewSubmitted,
)
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.service import Lease, Service

from tunewheel_eval.evaluation import Evaluator
from tunewheel_eval.forgetting import Erased, erase_corrections, forget
from tunewheel_eval.judges.trials import compared
from tunewheel_eval.plan import champion_of
from tunewheel_eval.requests import Asked, Versions
from tunewheel_eval.reviewing.answers import Answers
from tunewheel_eval.reviewing.asking import Notices, Verdict, ask
from tunewheel_eval.reviewing.deciding import Reviews
from tunewheel_eval.waiting import Turns


def register(service: Service, evaluator: Evaluator, erased: Erased, notices: Notices, turns: Turns) -> None:
    """Subscribe to finished runs, to people's reviews and to what curate erased. ``turns``: when evaluations
    run."""
    service.doors.ask_who()
    serving = service.view(topics.SERVING_DESIRED)
    service.check(topics.SERVING_DESIRED)
    indexes = service.view(topics.INDEX_VERSIONED)
    proofs = service.replay((topics.ERASURE_COMPLETED,), erased.apply)
    versions = Versions()
    built = service.replay((topics.DATASET_VERSIONED,), versions.apply)

    async def desired_now(project: str) -> ServingDesired | None:
        await serving.refresh()
        await proofs.refresh()
        desired = serving.get(project)
        return desired.data if desired else None

    async def newest_index(project: str) -> IndexVersioned | None:
        await indexes.refresh()
        newest = indexes.get(project)
        return newest.data if newest else None

    async def forget_late(project: str, dataset_id: str) -> None:
        """Repeat erasures that happened during a measurement and did not find its rows yet."""
        await proofs.refresh()
        await erased.forget_in(project, dataset_id, service.store)

    @service.job(topics.TRAIN_COMPLETED)
    async def on_train_completed(event: Envelope[TrainCompleted], lease: Lease) -> Envelope[Verdict]:
        async def judge() -> Verdict:
            desired = await desired_now(event.project)
            champion = champion_of(desired, candidate_id=event.data.adapter.model_id)
            index = await newest_index(event.project)
            spent = desired.spent if desired else 0.0
            return await evaluator.evaluate(event.data, champion, lease, index=index, spent=spent)

        verdict = await ask(service.store, await turns.take(event.project, event.data.run_id, lease, judge))
        await forget_late(event.project, event.data.dataset_id)
        return service.new(verdict, cause=event)

    async def may_ask(request: EvalRequested) -> None:
        await service.access.require(request.principal, Role.OPERATOR, request.project, field="principal")

    @service.job(topics.EVAL_REQUESTED)
    async def on_eval_requested(event: Envelope[EvalRequested], lease: Lease) -> Envelope[Verdict] | None:
        async def judge() -> tuple[EvaluationPlan, Verdict | None]:
            desired = await desired_now(event.project)
            await built.refresh()
            index, known = await newest_index(event.project), versions.of(event.project)
            asked = Asked(event.data, desired, may_ask, index, known)
            return await evaluator.evaluate_again(asked, lease)

        plan, judged = await turns.take(event.project, event.data.run_id, lease, judge)
        verdict = await ask(service.store, judged) if judged is not None else None
        await forget_late(plan.project, plan.rows_of)
        return service.new(verdict, cause=event) if verdict is not None else None

    async def may_review(said: ReviewSubmitted | ReviewAnswered) -> None:
        await service.access.require(said.principal, Role.REVIEWER, said.project, field="principal")

    answers = Answers()
    answered = service.replay((topics.REVIEW_ANSWERED,), answers.apply)
    reviews = Reviews(service.store, answers, may_review)

    @service.job(topics.REVIEW_REQUESTED)
    async def on_review_requested(event: Envelope[ReviewRequested], lease: Lease) -> None:
        await notices.tell(event, lease)

    @service.job(topics.COMPARISONS_REQUESTED)
    async def on_comparisons_requested(
        event: Envelope[ComparisonsRequested], lease: Lease
    ) -> Sequence[Envelope[AnswersCompared]]:
        told = await compared(evaluator.judges, service.store, event.data, check=lease.check)
        return [service.new(data, cause=event) for data in told]

    @service.on(topics.REVIEW_ANSWERED)
    async def on_review_answered(event: Envelope[ReviewAnswered]) -> None:
        await reviews.accept(event.data)

    @service.on(topics.REVIEW_SUBMITTED)
    async def on_review_submitted(event: Envelope[ReviewSubmitted]) -> Sequence[Envelope[Any]]:
        await answered.refresh()
        return [service.new(data, cause=event) for data in await reviews.settle(event.data)]

    @service.on(topics.ERASURE_COMPLETED)
    async def on_erasure_completed(event: Envelope[ErasureCompleted]) -> Sequence[Envelope[Any]]:
        corrected = await erase_corrections(event, service.store)
        proof = await forget(event, service.store)
        return [service.new(data, cause=event) for data in (proof, *corrected) if data is not None]

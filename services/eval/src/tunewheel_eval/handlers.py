"""The map of the eval service."""

from __future__ import annotations

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, ReviewSubmitted
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_runtime.service import Lease, Service

from tunewheel_eval.evaluation import Evaluator
from tunewheel_eval.plan import champion_of
from tunewheel_eval.reviews import settle
from tunewheel_eval.scorecards import Verdict


def register(service: Service, evaluator: Evaluator) -> None:
    """Subscribe to finished runs and to people's reviews."""
    serving = service.view(topics.SERVING_DESIRED)
    service.check(topics.SERVING_DESIRED)

    @service.job(topics.TRAIN_COMPLETED)
    async def on_train_completed(event: Envelope[TrainCompleted], lease: Lease) -> Envelope[Verdict]:
        await serving.refresh()
        desired = serving.get(event.project)
        champion = champion_of(desired.data if desired else None, candidate_id=event.data.adapter.model_id)
        return service.new(await evaluator.evaluate(event.data, champion, lease), cause=event)

    @service.on(topics.REVIEW_SUBMITTED)
    async def on_review_submitted(event: Envelope[ReviewSubmitted]) -> Envelope[EvalPassed | EvalFailed]:
        return service.new(await settle(service.store, event.data), cause=event)

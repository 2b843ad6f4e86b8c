"""The map of the monitor: scores traffic, and turns scores into alarms and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.evaluation import AnswersCompared
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.events.turns import CompletionsChosen, LabelsRequested
from tunewheel_contracts.events.upstream import ErasureRequested, FeedbackReceived
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.service import Delivery, Service

from tunewheel_monitor.rollout import comparisons
from tunewheel_monitor.scoring import Scorer
from tunewheel_monitor.watch import Watch

Scores = list[Envelope[Any]]


def register(service: Service, scorer: Scorer, watch: Watch) -> None:
    """Attach the handlers. The scoring handlers keep no state. ``on_inference_scored`` keeps state and
    publishes itself, before the offset is committed."""

    service.doors.ask_who()

    @service.on_batch(topics.INFERENCE_COMPLETED, max_records=1_000)
    async def on_inference_completed(deliveries: Sequence[Delivery[InferenceCompleted]]) -> Scores:
        return [*await scorer.completions(deliveries), *await watch.questions.withheld(deliveries)]

    @service.on_batch(topics.FEEDBACK_RECEIVED, max_records=1_000)
    async def on_feedback_received(deliveries: Sequence[Delivery[FeedbackReceived]]) -> Scores:
        return await scorer.ratings(deliveries)

    @service.on(topics.ANSWERS_COMPARED)
    async def on_answers_compared(event: Envelope[AnswersCompared]) -> Envelope[InferenceScored]:
        if event.data.judge is None:
            await service.access.require(
                event.data.principal, Role.REVIEWER, event.project, field="principal"
            )
        return service.new(comparisons.scored(event), cause=event)

    @service.on(topics.COMPLETIONS_CHOSEN)
    async def on_completions_chosen(event: Envelope[CompletionsChosen]) -> Envelope[LabelsRequested]:
        await service.access.require(event.data.principal, Role.REVIEWER, event.project, field="principal")
        return service.new(await watch.questions.choose(event.data), cause=event)

    @service.on_batch(topics.INFERENCE_SCORED, max_records=2_000)
    async def on_inference_scored(deliveries: Sequence[Delivery[InferenceScored]]) -> None:
        await watch.take(deliveries)

    @service.on(topics.ERASURE_REQUESTED)
    async def on_erasure_requested(event: Envelope[ErasureRequested]) -> Envelope[ErasureCompleted]:
        return service.new(await watch.forget(event), cause=event)

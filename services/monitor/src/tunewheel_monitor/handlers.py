"""The map of the monitor: traffic in, drift and rollout verdicts out."""

from __future__ import annotations

from collections.abc import Sequence

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.events.upstream import ErasureRequested, FeedbackReceived
from tunewheel_runtime.service import Delivery, Service

from tunewheel_monitor.watch import Watch

GROUPS = {
    topics.INFERENCE_COMPLETED: "monitor.inference-completed",
    topics.FEEDBACK_RECEIVED: "monitor.feedback-received",
}


def register(service: Service, watch: Watch) -> None:
    """Traffic's handlers publish by themselves, before the offset moves: see ``Watch``."""

    @service.on_batch(topics.INFERENCE_COMPLETED, group=GROUPS[topics.INFERENCE_COMPLETED])
    async def on_inference_completed(deliveries: Sequence[Delivery[InferenceCompleted]]) -> None:
        await watch.take(deliveries)

    @service.on_batch(topics.FEEDBACK_RECEIVED, group=GROUPS[topics.FEEDBACK_RECEIVED])
    async def on_feedback_received(deliveries: Sequence[Delivery[FeedbackReceived]]) -> None:
        await watch.take(deliveries)

    @service.on(topics.ERASURE_REQUESTED)
    async def on_erasure_requested(event: Envelope[ErasureRequested]) -> Envelope[ErasureCompleted]:
        return service.new(await watch.forget(event), cause=event)

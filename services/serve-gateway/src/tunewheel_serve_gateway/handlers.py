"""The topics that the gateway reads.

``project.declared`` and ``serving.desired`` decide which models are served, ``index.versioned`` which index
is searched. ``model.registered`` and ``model.promoted`` name the versions that a client may ask for by id.
``erasure.requested`` removes completions from memory and from the disk.
"""

from __future__ import annotations

from functools import partial

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_runtime.service import Service

from tunewheel_serve_gateway.gateway import Gateway

SILENT_SECONDS = 1.5
"""After so long without Kafka a gateway that starts answers by its snapshot."""


def register(service: Service, gateway: Gateway) -> None:
    """Subscribe the gateway. It reads all topics to their end before it answers the first request. While
    Kafka is away it answers by what it had read before.

    Every gateway process replays the erasures and removes the completions that it holds. One process of the
    consumer group publishes ``erasure.completed``.
    """
    for topic in (topics.PROJECT_DECLARED, topics.SERVING_DESIRED, topics.INDEX_VERSIONED):
        view = service.view(topic)
        view.on_change(gateway.take)
        view.on_removal(partial(gateway.remove, topic))
    service.replay((topics.MODEL_REGISTERED, topics.MODEL_PROMOTED), gateway.take)
    asked = service.replay((topics.ERASURE_REQUESTED,), gateway.on_erasure_requested)
    service.on_startup(gateway.start)
    service.on_silent_broker(gateway.start_without_log, after_seconds=SILENT_SECONDS)
    service.on_shutdown(gateway.close)

    @service.on(topics.ERASURE_REQUESTED)
    async def on_erasure_requested(event: Envelope[ErasureRequested]) -> Envelope[ErasureCompleted]:
        await asked.refresh()
        return service.new(await gateway.forgotten(event), cause=event)

"""The topics that the gateway reads.

``project.declared`` and ``serving.desired`` decide which models are served, ``index.versioned`` which index
is searched. ``model.registered`` and ``model.promoted`` name the versions that a client may ask for by id.
``erasure.requested`` removes completions from memory and from the disk.
"""

from __future__ import annotations

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
    declared, desired = service.view(topics.PROJECT_DECLARED), service.view(topics.SERVING_DESIRED)
    declared.on_change(gateway.on_project_declared)
    declared.on_removal(gateway.on_declaration_removed)
    desired.on_change(gateway.on_serving_desired)
    desired.on_removal(gateway.on_desired_removed)
    indexes = service.view(topics.INDEX_VERSIONED)
    indexes.on_change(gateway.on_index_versioned)
    indexes.on_removal(gateway.on_index_removed)
    service.replay((topics.MODEL_REGISTERED, topics.MODEL_PROMOTED), gateway.on_model)
    asked = service.replay((topics.ERASURE_REQUESTED,), gateway.on_erasure_requested)
    service.on_startup(gateway.start)
    service.on_silent_broker(gateway.start_without_log, after_seconds=SILENT_SECONDS)
    service.on_shutdown(gateway.close)

    @service.on(topics.ERASURE_REQUESTED)
    async def on_erasure_requested(event: Envelope[ErasureRequested]) -> Envelope[ErasureCompleted]:
        await asked.refresh()
        return service.new(await gateway.forgotten(event), cause=event)

"""What the gateway follows. It handles no event by itself: it serves what the views say."""

from __future__ import annotations

from tunewheel_contracts import topics
from tunewheel_runtime.service import Service

from tunewheel_serve_gateway.gateway import Gateway


def register(service: Service, gateway: Gateway) -> None:
    """Both views are read to their end before the first request is answered, and followed from there."""
    declared, desired = service.view(topics.PROJECT_DECLARED), service.view(topics.SERVING_DESIRED)
    declared.on_change(gateway.on_project_declared)
    declared.on_removal(gateway.on_declaration_removed)
    desired.on_change(gateway.on_serving_desired)
    desired.on_removal(gateway.on_desired_removed)
    service.on_startup(gateway.start)
    service.on_shutdown(gateway.close)

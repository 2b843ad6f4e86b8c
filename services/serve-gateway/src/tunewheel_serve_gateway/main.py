"""The gateway's process."""

from __future__ import annotations

from tunewheel_contracts import topics
from tunewheel_runtime.process import run_service
from tunewheel_runtime.record_search import RecordSearch
from tunewheel_runtime.service import Service

from tunewheel_serve_gateway.api import make_api
from tunewheel_serve_gateway.gateway import Gateway
from tunewheel_serve_gateway.handlers import register
from tunewheel_serve_gateway.settings import Settings

GARBAGE = 50_000
"""New objects after which garbage is looked for. Requests leave next to no cycles behind, and by Python's own
700 each request would pay for a search."""


def make_app(settings: Settings) -> Service:
    """Build the service; see ``Gateway`` for errors."""
    # While Kafka is away, applications are still answered and their completions wait on the disk.
    service = Service("serve-gateway", settings, needs_broker=False)
    search = RecordSearch(settings, topics.INFERENCE_COMPLETED)
    gateway = Gateway(
        settings,
        service.store,
        service.telemetry.meter,
        service.new,
        service.publish_many,
        service.publisher.send,
        search.find,
        service.fail,
        service.health.warn,
    )
    service.on_shutdown(search.close)
    register(service, gateway)
    service.doors.mount(make_api(gateway))
    return service


def main() -> None:
    """Run the service from the environment's settings."""
    import gc

    import uvloop

    gc.set_threshold(GARBAGE)
    run_service("serve-gateway", Settings, make_app, loop_factory=uvloop.new_event_loop)


if __name__ == "__main__":
    main()

"""The gateway's process."""

from __future__ import annotations

import sys

from tunewheel_runtime.service import Service

from tunewheel_serve_gateway.api import make_api
from tunewheel_serve_gateway.gateway import Gateway
from tunewheel_serve_gateway.handlers import register
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream.chat_template import InvalidTemplate


def make_app(settings: Settings) -> Service:
    """Build the service; see ``Gateway`` for errors."""
    service = Service("serve-gateway", settings)
    gateway = Gateway(
        settings,
        service.store,
        service.telemetry.meter,
        service.new,
        service.publish_many,
        service.fail,
    )
    register(service, gateway)
    service.mount(make_api(gateway))
    service.tell_metrics(gateway.metrics_text)
    return service


def main() -> None:
    """Run until stopped; exit code 2 for settings that cannot work."""
    try:
        service = make_app(Settings())
    except InvalidTemplate as error:
        print(f"tunewheel-serve-gateway: {error}", file=sys.stderr)
        sys.exit(2)
    service.run()


if __name__ == "__main__":
    main()

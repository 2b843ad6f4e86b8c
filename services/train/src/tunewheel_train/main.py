"""The train service: ``tunewheel-train``."""

from __future__ import annotations

from tunewheel_runtime.service import Service

from tunewheel_train.handlers import register
from tunewheel_train.settings import Settings


def make_app(settings: Settings) -> Service:
    """Build the service; nothing runs yet."""
    service = Service("train", settings)
    register(service, settings)
    return service


def main() -> None:
    """Run the service until it is stopped."""
    make_app(Settings()).run()


if __name__ == "__main__":
    main()

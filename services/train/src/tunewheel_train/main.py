"""The train service: ``tunewheel-train``."""

from __future__ import annotations

from collections.abc import Sequence

from tunewheel_runtime.process import run_service
from tunewheel_runtime.service import Service

from tunewheel_train.handlers import register
from tunewheel_train.runs.process import WORKER
from tunewheel_train.settings import Settings


def make_app(settings: Settings, *, worker: Sequence[str] = WORKER) -> Service:
    """Build the service; nothing runs yet. ``worker`` is the command of a training process."""
    service = Service("train", settings)
    register(service, settings, worker=worker)
    return service


def main() -> None:
    """Run the service from the environment's settings."""
    run_service("train", Settings, make_app)


if __name__ == "__main__":
    main()

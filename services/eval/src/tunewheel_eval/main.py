"""The eval service's process."""

from __future__ import annotations

from tunewheel_runtime.service import Service

from tunewheel_eval.evaluation import Evaluator
from tunewheel_eval.handlers import register
from tunewheel_eval.settings import Settings


def make_app(settings: Settings) -> Service:
    """Build the service; nothing runs yet."""
    service = Service("eval", settings)
    evaluator = Evaluator(service.store, settings)
    service.on_startup(evaluator.prepare)
    register(service, evaluator)
    return service


def main() -> None:
    """Run until stopped."""
    make_app(Settings()).run()


if __name__ == "__main__":
    main()

"""The eval service's process."""

from __future__ import annotations

from collections.abc import Sequence

from tunewheel_runtime.process import run_service
from tunewheel_runtime.service import Service
from tunewheel_runtime.slots import Slots
from tunewheel_runtime.webhooks import Webhook

from tunewheel_eval.evaluation import Evaluator
from tunewheel_eval.forgetting import Erased
from tunewheel_eval.handlers import register
from tunewheel_eval.measured import Measured
from tunewheel_eval.reviewing.asking import Notices
from tunewheel_eval.settings import Settings
from tunewheel_eval.waiting import Turns
from tunewheel_eval.worker_process import WORKER


def make_app(settings: Settings, *, worker: Sequence[str] = WORKER) -> Service:
    """Build the service; nothing runs yet. ``worker`` is the command of a measuring process."""
    service = Service("eval", settings)
    erased = Erased()
    metrics = Measured(service.telemetry.meter)
    evaluator = Evaluator(service.store, settings, erased, worker=worker, metrics=metrics)
    service.on_startup(evaluator.prepare)
    service.on_shutdown(evaluator.close)
    notices = Notices(service.store, Webhook.of(settings), settings)
    turns = Turns(service.health.warn, settings.eval_wait_seconds, Slots(settings.eval_slots))
    register(service, evaluator, erased, notices, turns)
    return service


def main() -> None:
    """Run the service from the environment's settings."""
    run_service("eval", Settings, make_app)


if __name__ == "__main__":
    main()

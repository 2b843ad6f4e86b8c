"""The monitor's process."""

from __future__ import annotations

from tunewheel_contracts import topics
from tunewheel_runtime.process import run_service
from tunewheel_runtime.retry import Backoff, retry
from tunewheel_runtime.service import Service
from tunewheel_runtime.static_embedding import StaticEmbedder

from tunewheel_monitor.handlers import GROUPS, register
from tunewheel_monitor.judging import Judge
from tunewheel_monitor.knowledge import Knowledge
from tunewheel_monitor.log_ranges import LogRanges
from tunewheel_monitor.marks import Marks
from tunewheel_monitor.records import WindowRecords
from tunewheel_monitor.reference import References
from tunewheel_monitor.settings import Settings
from tunewheel_monitor.sorting import Sorter
from tunewheel_monitor.watch import Watch

KNOWN_FROM = (
    topics.MODEL_PROMOTED,
    topics.MODEL_ROLLEDBACK,
    topics.EVAL_PASSED,
    topics.ROLLOUT_JUDGED,
    topics.DRIFT_DETECTED,
    topics.ERASURE_REQUESTED,
)


def make_app(settings: Settings) -> Service:
    """Build the service: specs, routes and verdicts are read to the end before any traffic is."""
    service = Service("monitor", settings)
    service.one_at_a_time(topics.PROJECT_DECLARED)
    watch = make_watch(service, settings)

    async def start() -> None:
        backoff = Backoff(
            settings.retry_attempts, settings.retry_first_delay_seconds, settings.retry_max_delay_seconds
        )
        await retry(watch.start, backoff, what="catching up with the traffic")

    service.on_startup(start)
    register(service, watch)
    return service


def make_watch(service: Service, settings: Settings) -> Watch:
    knowledge = Knowledge()
    embedder = StaticEmbedder()
    lifecycle = service.replay(KNOWN_FROM, knowledge.apply)
    service.withhold(knowledge.erasures, lifecycle)
    return Watch(
        log=service,
        knowledge=knowledge,
        sorter=Sorter(
            declared=service.view(topics.PROJECT_DECLARED),
            desired=service.view(topics.SERVING_DESIRED),
            knowledge=knowledge,
            lifecycle=lifecycle,
            records=WindowRecords(service.store),
        ),
        references=References.of(service.store, embedder, limit=settings.reference_texts),
        judge_window=Judge(embedder.embed, settings.drift_examples),
        marks=Marks(LogRanges(settings), GROUPS),
    )


def main() -> None:
    """Run the service from the environment's settings."""
    run_service("monitor", Settings, make_app)


if __name__ == "__main__":
    main()

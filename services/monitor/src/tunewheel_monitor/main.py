"""The monitor's process."""

from __future__ import annotations

from functools import partial

from tunewheel_contracts import topics
from tunewheel_embedding.sentence import SentenceEmbedder
from tunewheel_embedding.static import StaticEmbedder
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.log import at
from tunewheel_runtime.process import run_service
from tunewheel_runtime.service import Service

from tunewheel_monitor.checkpoints import Checkpoints
from tunewheel_monitor.clock import Clock, Progress
from tunewheel_monitor.evidence import Exhibits
from tunewheel_monitor.handlers import register
from tunewheel_monitor.knowledge import TOPICS, Knowledge
from tunewheel_monitor.metrics import Metrics
from tunewheel_monitor.pseudonym_keys import PseudonymKeys
from tunewheel_monitor.reference import References
from tunewheel_monitor.sample import Sample
from tunewheel_monitor.scoring import Scorer
from tunewheel_monitor.settings import Settings
from tunewheel_monitor.watch import Watch


def make_app(settings: Settings) -> Service:
    """Assemble the service without starting it. At its start it reads specs, routes and verdicts to the end
    of the log before any traffic."""
    service = Service("monitor", settings)
    knowledge = make_knowledge(service)
    embedder = StaticEmbedder()
    exhibits = Exhibits(service.store, partial(at, client_options(settings)), knowledge.erasures)
    pseudonyms = PseudonymKeys(service.store, knowledge.erasures, knowledge.refresh)
    metrics = Metrics(service.telemetry)
    encoder = SentenceEmbedder() if settings.encoded_per_hour else None
    references = References(
        service.store, embedder, settings.reference_texts, metrics, encoder,
        knowledge.erasures, knowledge.refresh, service.health.warn,
    )  # fmt: skip
    watch = Watch(
        service, service.health.warn, knowledge, references, Checkpoints(service.store), exhibits,
        pseudonyms, metrics,
    )  # fmt: skip
    sample = Sample(encoder, settings.encoded_per_hour)
    scorer = Scorer(knowledge, references, embedder, service.new, pseudonyms, metrics, sample)
    register(service, scorer, watch)
    clock = Clock(
        settings.clock_seconds,
        knowledge.projects,
        Progress(service.subscriptions).settled,
        watch.tick,
        service.fail,
    )
    service.on_startup(clock.start)
    service.on_shutdown(clock.stop)
    service.on_shutdown(references.close)
    return service


def make_knowledge(service: Service) -> Knowledge:
    knowledge = Knowledge(service.view(topics.PROJECT_DECLARED), service.view(topics.SERVING_DESIRED))
    knowledge.lifecycle = service.replay(TOPICS, knowledge.apply)
    service.withhold(knowledge.erasures, knowledge.lifecycle)
    return knowledge


def main() -> None:
    """Run the service from the environment's settings."""
    run_service("monitor", Settings, make_app)


if __name__ == "__main__":
    main()

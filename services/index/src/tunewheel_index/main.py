"""The index's process."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_embedding.embedders import Embedders
from tunewheel_runtime.deadletter import Position
from tunewheel_runtime.process import run_service
from tunewheel_runtime.service import Service

from tunewheel_index.building import Builder, Upto
from tunewheel_index.handlers import register
from tunewheel_index.indexer import Indexer, apply
from tunewheel_index.metrics import Metrics
from tunewheel_index.project import Project
from tunewheel_index.settings import Settings
from tunewheel_index.storing import IndexStore


def make_app(settings: Settings) -> Service:
    """Build the service. It reads specs, newest versions, withdrawals and erasures before any record."""
    service = Service("index", settings)
    service.one_at_a_time(topics.PROJECT_DECLARED)
    metrics = Metrics(service.telemetry)
    versions = IndexStore(service.store)
    embedders = Embedders(AllowedSources(hosts=settings.spec_hosts))
    indexer = Indexer(
        service.view(topics.PROJECT_DECLARED),
        service.view(topics.INDEX_VERSIONED),
        versions,
        metrics=metrics,
        quiet_seconds=settings.index_quiet_seconds,
        retry_seconds=settings.index_retry_seconds,
        warn=service.warn,
        failed=service.fail,
    )
    takebacks, records = register(service, indexer, versions)

    def upto() -> Upto:
        return Upto(
            records.upto(topics.RECORD_INGESTED),
            takebacks.upto(topics.DOCUMENT_WITHDRAWN),
            takebacks.upto(topics.ERASURE_REQUESTED),
        )

    indexer.builder = Builder(
        service,
        versions,
        embedders,
        upto,
        lambda project, wanted: read_again(project, wanted, service),
        lambda project, record_id: indexer.judgements.verdict(project, record_id) == "release",
        metrics=metrics,
        max_passages=settings.index_max_passages,
        kept_versions=settings.index_kept_versions,
        secret=settings.pseudonym_secret.get_secret_value() if settings.pseudonym_secret else "",
    )
    service.on_startup(indexer.start)
    service.on_shutdown(indexer.builder.close)
    service.on_shutdown(embedders.close)
    service.on_shutdown(indexer.stop)
    return service


async def read_again(project: Project, wanted: Collection[str] | None, service: Service) -> None:
    """Read the whole log of records for one project, and keep the texts of the ``wanted`` records.

    None: keep all texts, because the project has read no record yet.

    Raises:
        TransientError: the broker does not answer.
    """

    def take(envelope: Envelope[Any], _: Position) -> None:
        apply(project, envelope, again=wanted)

    await service.read_whole(topics.RECORD_INGESTED, take)
    project.is_whole = True


def main() -> None:
    """Run the service with settings from the environment."""
    run_service("index", Settings, make_app)


if __name__ == "__main__":
    main()

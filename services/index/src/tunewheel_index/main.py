"""The index's process."""

from __future__ import annotations

from tunewheel_contracts import topics
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.record_table import table_url
from tunewheel_embedding.embedders import Embedders
from tunewheel_runtime.process import run_service
from tunewheel_runtime.service import Service

from tunewheel_index.building import Builder, Upto
from tunewheel_index.handlers import register
from tunewheel_index.indexer import Indexer
from tunewheel_index.metrics import Metrics
from tunewheel_index.records import read_again
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
        warn=service.health.warn,
        failed=service.fail,
    )
    takebacks, records = register(service, indexer, versions)
    records_at = table_url(service.store.url, service.store.local_root)

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
        lambda project, wanted: read_again(project, wanted, settings=settings, table_url=records_at),
        lambda project, record_id: indexer.judgements.verdict(project, record_id) == "release",
        metrics=metrics,
        max_passages=settings.index_max_passages,
        kept_versions=settings.index_kept_versions,
        secret=settings.pseudonym_secret.get_secret_value() if settings.pseudonym_secret else "",
    )

    async def start() -> None:
        begins = {str(number): span.begin for (_, number), span in (await records.look()).items()}
        indexer.start(begins)

    service.on_startup(start)
    service.on_shutdown(indexer.builder.close)
    service.on_shutdown(embedders.close)
    service.on_shutdown(indexer.stop)
    return service


def main() -> None:
    """Run the service with settings from the environment."""
    run_service("index", Settings, make_app)


if __name__ == "__main__":
    main()

"""Assembles the curate service."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import structlog
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ExamplePublished
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.record_table import table_url
from tunewheel_runtime.attempts import Attempts
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.partitions import group_backlog
from tunewheel_runtime.process import run_service
from tunewheel_runtime.retention import delete_handled
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.service import Service
from tunewheel_runtime.slots import Slots

from tunewheel_curate.builds.building import WORKER, Builder
from tunewheel_curate.builds.log_state import TOPICS, LogState
from tunewheel_curate.builds.metrics import Metrics
from tunewheel_curate.curation import Curation
from tunewheel_curate.evaluation.benchmarks import regression_benchmark
from tunewheel_curate.handlers import register
from tunewheel_curate.labelling.reminders import Reminders
from tunewheel_curate.labelling.requests import LabelsWanted
from tunewheel_curate.labelling.taught_answers import TaughtAnswers
from tunewheel_curate.records.log import GROUP, MissingRecords, catch_up
from tunewheel_curate.records.table import RecordTable
from tunewheel_curate.settings import Settings
from tunewheel_curate.watching import Watch

log = structlog.get_logger(__name__)

NO_SECRET = (
    "TUNEWHEEL_PSEUDONYM_SECRET is not set: whoever reads a dataset can confirm a guess of a customer's id; "
    "set the same secret on every machine that builds, and never change it"
)


def make_app(settings: Settings, *, worker: Sequence[str] = WORKER) -> Service:
    """Assemble the service without starting it. ``worker`` is the command of the process that runs builds.

    Raises:
        ValueError: the store's URL cannot hold the record table.
    """
    service = Service("curate", settings)
    if settings.pseudonym_secret is None:
        log.warning("no_pseudonym_secret", reason=NO_SECRET)
    state = LogState()
    allowed = AllowedSources.configured(
        hosts=settings.spec_hosts, folders=settings.spec_folders, store_url=service.store.url
    )
    builder = Builder(
        regression_set=settings.eval_regression_set,
        pseudonym_secret=settings.pseudonym_secret,
        allowed=allowed,
        seconds=settings.build_seconds,
        worker=worker,
        metrics=Metrics(service.telemetry.meter),
    )
    if service.store.url.startswith("memory:"):
        # the build's process could not read it
        raise ValueError(
            "store_url memory:// cannot hold the record table; use file://, s3://, gs:// or az://"
        )
    table = RecordTable(table_url(service.store.url, service.store.local_root))
    missing = MissingRecords(service.store, service.health.warn)

    async def held(partition: int) -> int:
        # Whoever restores a backup of the table needs all of the log that is left. Another replica may have
        # noted what is missing, and the table that lies in the store counts, not the one that was opened.
        await missing.recall()
        return 0 if missing.count else await asyncio.to_thread(RecordTable(table.url).reached, partition)

    async def fill() -> None:
        await curation.recall_erasures()
        await catch_up(table, settings, missing=missing, erasures=state.erasures.all)

    async def read_regression_set() -> None:
        # A bad setting stops the service here. In a build it would look like a fault of every project.
        await asyncio.to_thread(regression_benchmark, settings.eval_regression_set)

    followed = service.replay_at(TOPICS, state.apply)
    service.withhold(state.erasures, followed)
    projects = service.view(topics.PROJECT_DECLARED)
    indexes = service.view(topics.INDEX_VERSIONED)
    curation = Curation(
        service,
        table=table,
        projects=projects,
        indexes=indexes,
        state=state,
        followed=followed,
        builder=builder,
        missing=missing,
        attempts=Attempts(service.store, service.name, limit=settings.build_attempts),
        slots=Slots(settings.build_slots),
        backoff=Backoff(settings.build_attempts, settings.build_retry_seconds, math.inf),
        catch_up=fill,
    )
    watch = Watch(
        service,
        curation,
        seconds=settings.policy_seconds,
        compact_files=settings.compact_files,
        read_backlog=partial(
            group_backlog, client_options(settings), topics.RECORD_INGESTED.name, group=GROUP
        ),
    )

    async def publish_taught(example: ExamplePublished, cause: Envelope[Any]) -> None:
        await service.publish(service.new(example, cause=cause))

    taught = TaughtAnswers(service.store, allowed, publish_taught)
    labels = LabelsWanted(projects, taught, settings)
    reminders = Reminders(projects, service.store, settings)
    register(service, curation, labels, reminders, append_batch=settings.append_batch)
    service.on_startup(missing.recall)
    service.on_startup(read_regression_set)
    service.on_startup(fill)
    delete_handled(service, days=settings.record_days, held=held)
    service.on_startup(watch.start)
    service.on_shutdown(watch.stop)
    service.on_shutdown(builder.close)
    return service


def main() -> None:
    """Run the service from the environment's settings."""
    run_service("curate", Settings, make_app)


if __name__ == "__main__":
    main()

"""Dataset versions on a real broker: the same wherever they are built, without what was taken back."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import polars as pl
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import (
    BuildReason,
    DatasetRejected,
    DatasetRequested,
    DatasetVersioned,
    RecordIngested,
    RecordKind,
)
from tunewheel_contracts.events.upstream import DocumentWithdrawn, ErasureRequested
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_runtime.service import Service

from ..conftest import BrokerFactory
from .bus import PATIENCE_SECONDS, Bus, running
from .desk_records import desk_records, general_rows, rich_dataset
from .fork_server import forked
from .test_curate import curate, records, spec_of, versions

pytestmark = pytest.mark.integration

OILED = "Oil the bell of a bicycle once every year, before winter comes."
SILENT = {"min_new_records": 100_000}
Worker = tuple[str, ...]


def command(project: str, name: str) -> Envelope[DatasetRequested]:
    data = DatasetRequested(project=project, reason=BuildReason.COMMAND, request=name)
    return new_event(data, source="/test")


def document(project: str) -> Envelope[RecordIngested]:
    data = RecordIngested(
        project=project,
        record_id=content_id("rec", [project, "sop.md"]),
        kind=RecordKind.DOCUMENT,
        source_id="sop.md",
        source_event_id="event-sop",
        input=f"# Bells\n\n{OILED}",
        group="sop.md",
    )
    return new_event(data, source="/test")


async def rejections(bus: Bus, project: str, count: int = 1) -> list[Envelope[DatasetRejected]]:
    return await bus.collect(topics.DATASET_REJECTED, count, where=lambda e: e.project == project)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


async def two_versions(
    kafka: str,
    store: Path,
    told: list[Envelope[RecordIngested]],
    general: Path,
    *,
    replicas: int,
    worker: Worker,
) -> list[Envelope[DatasetVersioned]]:
    """Build a version of thirty records, then one of forty that remembers its holdout."""
    project = told[0].project
    half, fifth = (rich_dataset(general) | {"holdout_fraction": fraction} for fraction in (0.5, 0.2))
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(Bus(kafka))
        for _ in range(replicas):
            await stack.enter_async_context(running(curate(kafka, store, worker=worker)))
        await bus.publish(spec_of(project, half, **SILENT), *told[:30], command(project, "one"))
        await versions(bus, project)
        rest = [*reversed(told[20:]), command(project, "two")]
        await bus.publish(spec_of(project, fifth, **SILENT), *rest)
        return await versions(bus, project, 2)


@pytest.mark.nightly("matrices")
async def test_the_same_versions_come_of_one_process_two_replicas_and_a_replay(
    broker_factory: BrokerFactory, fresh_kafka: str, tmp_path: Path, project: str
) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    told, general = desk_records(project), general_rows(tmp_path / "general.jsonl")
    # Their strings hash differently: what depends on that would show.
    worker, other = (forked("tunewheel_curate.builds.worker", hash_seed=seed) for seed in "12")
    broker = await asyncio.to_thread(broker_factory)
    kafka = broker.bootstrap_servers  # on the shared one other tests' projects are built here, too
    first = await two_versions(kafka, alone, told, general, replicas=1, worker=worker)
    await widen(fresh_kafka, topics.RECORD_INGESTED.name, 6)
    second = await two_versions(fresh_kafka, together, told, general, replicas=2, worker=other)
    assert [e.data.dataset_id for e in first] == [e.data.dataset_id for e in second]
    assert len(first[1].data.records_upto or {}) <= 3 < len(second[1].data.records_upto or {})
    assert first[1].data.previous == first[0].data.dataset_id
    assert first[1].data.counts.holdout >= first[0].data.counts.holdout
    made = contents(alone / "datasets")
    assert len(made) > 20
    assert contents(together / "datasets") == made
    holds_all_kinds(first[1].data, alone)

    shutil.rmtree(alone)
    async with Bus(kafka) as bus, running(curate(kafka, alone, worker=other)):
        await bus.publish(command(project, "three"))
        (rejected,) = await rejections(bus, project)
    assert first[1].data.dataset_id in rejected.data.reasons[0]
    assert contents(alone / "datasets") == made


def holds_all_kinds(version: DatasetVersioned, store: Path) -> None:
    """Assert that a version has something of all that ``desk_records`` and ``rich_dataset`` are there for."""
    folder = store / "datasets" / version.dataset_id
    manifest = DatasetManifest.model_validate_json((folder / "manifest.json").read_bytes())
    lineage = pl.read_parquet(folder / "lineage.parquet")
    used = lineage.filter(pl.col("example_id").is_not_null())
    assert set(used["kind"]) == {"ticket", "example", "feedback", "document"}
    assert {"near_duplicate", "replaced"} <= set(lineage["reason"].drop_nulls())
    assert set(manifest.counts.formats) == {"answer", "chunk", "question", "replay"}
    assert manifest.counts.preferences >= 1
    rows = pl.concat([pl.read_parquet(folder / f"{side}.parquet") for side in ("train", "holdout")])
    assert max(len(turns) for turns in rows["messages"].to_list()) == 5, (
        "a thread of three turns and a prompt"
    )
    words = str(rows["messages"].to_list())
    assert "@example.com" not in words
    assert "three weeks" in words
    assert "two weeks" not in words


async def widen(kafka: str, topic: str, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(partitions)})
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len((await admin.describe_topics([topic]))[0]["partitions"]) < partitions:
                await asyncio.sleep(0.1)
    finally:
        await admin.close()


async def test_a_person_is_forgotten_with_a_proof_and_a_version_without_them(
    kafka: str, tmp_path: Path, project: str
) -> None:
    store = tmp_path / "store"
    data = ErasureRequested(
        project=project, erasure_id=f"letter-{project}", customer="customer-7", requested_by="privacy"
    )
    async with Bus(kafka) as bus:
        async with running(curate(kafka, store)) as service:
            await bus.publish(spec_of(project), *records(project))
            (first,) = await versions(bus, project)
            asked = new_event(data, source="/test")
            await bus.publish(asked)
            (proof,) = await bus.collect(topics.ERASURE_COMPLETED, 1, where=lambda e: e.project == project)
            _, second = await versions(bus, project, 2)
            manifest = DatasetManifest.model_validate_json(await service.store.get(second.data.manifest))
            groups = [(await service.store.get(ref)) for ref in (manifest.train, manifest.holdout)]
        assert "customer-7" not in words_of(project, store / "records")
        shutil.rmtree(store / "records")
        async with running(curate(kafka, store)):
            await bus.publish(command(project, "again"))
            (rejected,) = await rejections(bus, project)
        assert "customer-7" not in words_of(project, store / "records")
    assert (proof.data.records, proof.data.dataset_ids) == (1, (first.data.dataset_id,))
    assert (proof.data.erased_by, proof.data.requested_by) == ("curate", "privacy")
    assert proof.causation_id == asked.id
    assert second.data.counts.examples == first.data.counts.examples - 1 == 39
    named = {group for part in groups for group in pl.read_parquet(part)["group"]}
    assert Pseudonyms(project).of("group", "customer-8") in named
    assert Pseudonyms(project).of("group", "customer-7") not in named
    assert second.data.dataset_id in rejected.data.reasons[0], "the log brought nobody back"


def words_of(project: str, table: Path) -> str:
    """Return everything that the table's files hold of ``project``, Parquet unpacked, and Delta's own log."""
    rows = [
        str(pl.read_parquet(file).to_dicts()) for file in (table / f"project={project}").glob("*.parquet")
    ]
    log = [file.read_text("utf-8") for file in (table / "_delta_log").glob("*.json")]
    assert rows
    assert log
    return "\n".join(rows + log)


@pytest.mark.nightly("matrices")
async def test_a_withdrawn_document_is_in_no_later_version_until_it_is_published_again(
    kafka: str, tmp_path: Path, project: str
) -> None:
    def fate(event: Envelope[DatasetVersioned]) -> dict[str, int]:
        return event.data.funnel[0].reasons

    passages = {"formats": {"documents": {"chunks": {"enabled": True}}}}
    withdrawn = DocumentWithdrawn(project=project, document_id="sop.md", reason="out of date")
    async with Bus(kafka) as bus, running(curate(kafka, tmp_path / "store")) as service:
        await bus.publish(spec_of(project, passages, **SILENT), *records(project), document(project))
        await bus.publish(command(project, "one"))
        (first,) = await versions(bus, project)
        withdrawal = new_event(withdrawn, source="/test")
        await bus.publish(withdrawal)  # and nobody asks for a version
        _, without = await versions(bus, project, 2)
        asked = await bus.collect(topics.DATASET_REQUESTED, 3, where=lambda e: e.project == project)
        await bus.publish(document(project), command(project, "two"))
        *_, again = await versions(bus, project, 3)
        told = [await held(service, version.data) for version in (first, without, again)]
    assert told == [(1, 1), (0, 0), (1, 1)]
    assert [event.causation_id for event in asked].count(withdrawal.id) == 1
    assert without.data.counts.train == first.data.counts.train - 1
    assert sum((without.data.withdrawals_upto or {}).values()) >= 1
    assert (fate(first), fate(without), fate(again)) == ({}, {"withdrawn": 1}, {})
    assert again.data.counts == first.data.counts, "it is there again, as it was"
    assert again.data.previous == without.data.dataset_id
    assert len({version.data.dataset_id for version in (first, without, again)}) == 3, (
        "nobody did this before"
    )


async def held(service: Service, version: DatasetVersioned) -> tuple[int, int]:
    """Return how many rows of a version's data say what ``document`` does, and how many examples its lineage
    makes of it."""
    manifest = DatasetManifest.model_validate_json(await service.store.get(version.manifest))
    assert manifest.lineage
    parts = [pl.read_parquet(await service.store.get(ref)) for ref in (manifest.train, manifest.holdout)]
    lineage = pl.read_parquet(await service.store.get(manifest.lineage))
    told = sum(OILED in str(turns) for part in parts for turns in part["messages"].to_list())
    source = Pseudonyms(version.project).of("source", "sop.md")
    return told, lineage.filter(pl.col("source_id") == source)["example_id"].drop_nulls().len()

"""Curate on a real broker: records become one version, whatever is repeated, killed or forgotten."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import (
    BuildReason,
    DatasetRequested,
    DatasetVersioned,
    RecordIngested,
    RecordJudged,
    RecordKind,
)
from tunewheel_contracts.events.production import DriftDetected, DriftWindow
from tunewheel_contracts.events.upstream import FeedbackReceived
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.quarantine import Quarantine, quarantine_path
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.principal import Trust
from tunewheel_runtime.partitions import partition_of
from tunewheel_runtime.service import Service
from tunewheel_testing.specs import declared
from tunewheel_testing.waiting import until

from .bus import Bus, running
from .fork_server import forked

pytestmark = pytest.mark.integration

SUBJECTS = ("commuter", "racer", "tandem", "cargo bike", "trailer", "folding bike", "tricycle", "e-bike")
SOPS = Path(__file__).resolve().parents[2] / "examples" / "helpdesk" / "sops"
FAULTS = ("is silent", "rings by itself", "fell off on the road", "came in the wrong colour", "rattles")


def curate(kafka: str, store: Path, *, worker: Sequence[str] = (), **settings: Any) -> Service:
    """``worker`` is the command of its builds' process: by default forked from one that is loaded. Specs may
    read general data from the folder that holds the store."""
    from tunewheel_curate.main import make_app
    from tunewheel_curate.settings import Settings

    made = Settings(
        bootstrap_servers=kafka,
        store_url=store.as_uri(),
        policy_seconds=0.1,
        spec_folders=str(store.parent),
        **settings,
    )
    # Of this seed ``test_versions`` has one anyway, in this very process.
    return make_app(made, worker=worker or forked("tunewheel_curate.builds.worker", hash_seed="1"))


def records(project: str) -> list[Envelope[RecordIngested]]:
    """Forty records of forty customers, half of each category."""
    made: list[Envelope[RecordIngested]] = []
    for number, (subject, fault) in enumerate((s, f) for s in SUBJECTS for f in FAULTS):
        part = ("bell", "horn")[number % 2]
        text = f"Order {number * 7919}: the {part} of my {subject} {fault}, what now?"
        data = RecordIngested(
            project=project,
            record_id=content_id("rec", [project, text]),
            kind=RecordKind.TICKET,
            source_id=f"T-{number}",
            source_event_id=f"event-{number}",
            input=text,
            output=json.dumps({"category": part}),
            group=f"customer-{number}",
            trust=Trust.EXPERT,
        )
        made.append(new_event(data, source="/test"))
    return made


def spec_of(project: str, dataset: dict[str, Any] | None = None, /, **build: Any) -> Envelope[Any]:
    """Forty records are a version; silence never is one unless ``build`` says so."""
    policy = {"min_new_records": 40, "quiet_seconds": None} | build
    return declared(project, dataset={"min_examples": 20, "build": policy} | (dataset or {}))


async def versions(bus: Bus, project: str, count: int = 1) -> list[Envelope[DatasetVersioned]]:
    return await bus.collect(topics.DATASET_VERSIONED, count, where=lambda e: e.project == project)


def feedback(project: str, number: int, **said: Any) -> Envelope[FeedbackReceived]:
    """What somebody says of an answer; a thumb down, and nothing beside it, unless ``said`` adds to it."""
    asked = {"role": "user", "content": f"Where is order {number * 6361} of the {SUBJECTS[number]}?"}
    given: dict[str, Any] = {
        "project": project,
        "feedback_id": f"F-{number}",
        "completion_id": f"completion-{number}",
        "rating": "down",
        "messages": ({"role": "system", "content": "Answer as JSON."}, asked),
        "output": "It rings.",
    }
    return new_event(FeedbackReceived.model_validate(given | said), source="/test")


async def test_enough_records_become_a_version(kafka: str, tmp_path: Path, project: str) -> None:
    """Forty records, and seven that ingest makes of corrections. A thumb down that corrects nothing, and one
    whose answer nobody knows, tell of nothing to avoid."""
    from .test_ingest import ingest

    corrected = [feedback(project, n, correction={"category": ("bell", "horn")[n % 2]}) for n in range(6)]
    silent = feedback(project, 6)
    unseen = feedback(project, 7, correction={"category": "bell"}, output=None)
    async with (
        Bus(kafka) as bus,
        running(ingest(kafka, tmp_path)),
        running(curate(kafka, tmp_path / "store")) as service,
    ):
        await bus.publish(
            spec_of(project, {"corrections": "train"}, min_new_records=47),
            silent,
            unseen,
            *corrected,
            *records(project),
        )
        (event,) = await versions(bus, project)
        manifest = DatasetManifest.model_validate_json(await service.store.get(event.data.manifest))
        train = pl.read_parquet(await service.store.get(manifest.train))
        holdout = pl.read_parquet(await service.store.get(manifest.holdout))
        assert manifest.card
        card = (await service.store.get(manifest.card)).decode()
        assert manifest.preferences
        pairs = pl.read_parquet(await service.store.get(manifest.preferences))
        (request,) = await bus.collect(topics.DATASET_REQUESTED, 1, where=lambda e: e.project == project)
    assert event.data.counts.examples == train.height + holdout.height == 47
    assert set(holdout["label"]) == {"bell", "horn"}
    assert event.data.reason is BuildReason.COUNT
    assert event.causation_id == request.id
    assert event.correlation_id == f"turn-{event.data.dataset_id}"
    assert manifest.data_docs is None, "nothing is expected of a first version"
    assert f"# Dataset {event.data.dataset_id}" in card
    trained = {messages[1]["content"] for messages in train["messages"].to_list()}
    told = {
        row["prompt"][-1]["content"]: (json.loads(row["chosen"]), row["rejected"], row["trust"])
        for row in pairs.iter_rows(named=True)
    }
    assert told == {
        question: (event.data.correction, "It rings.", "corrected")
        for event in corrected
        if (question := event.data.messages[1].content) in trained
    }
    assert pairs.height == event.data.counts.preferences >= 3


@pytest.mark.nightly("matrices")
async def test_a_correction_waits_until_a_person_releases_it(
    kafka: str, tmp_path: Path, project: str
) -> None:
    thumb = RecordIngested(
        project=project, record_id=content_id("rec", [project, "F"]), kind=RecordKind.FEEDBACK,
        source_id="completion-1", source_event_id="F", input="Where is the bell of my unicycle?",
        output=json.dumps({"category": "bell"}), group="ann", trust=Trust.CORRECTED,
    )  # fmt: skip
    released = RecordJudged(project=project, record_id=thumb.record_id, verdict="release", request="r1")
    again = DatasetRequested(project=project, reason=BuildReason.COMMAND, request="again")
    async with Bus(kafka) as bus, running(curate(kafka, tmp_path / "store")) as service:
        correction = new_event(thumb, source="/test")
        await bus.publish(spec_of(project, min_new_records=40), correction, *records(project))
        (first,) = await versions(bus, project)
        listed = Quarantine.model_validate_json(await service.store.read(quarantine_path(project)) or b"")
        assert [(one.record_id, one.reason) for one in listed.records] == [(thumb.record_id, "correction")]
        await bus.publish(new_event(released, source="/test"), new_event(again, source="/test"))
        _, second = await versions(bus, project, 2)
        manifest = DatasetManifest.model_validate_json(await service.store.get(second.data.manifest))
    assert second.data.counts.examples == first.data.counts.examples + 1
    assert first.data.judged_upto is None
    assert second.data.judged_upto
    assert manifest.quality is not None
    assert not manifest.quality.quarantined


@pytest.mark.nightly("matrices")
async def test_repeated_records_and_a_deleted_table_change_nothing(
    kafka: str, tmp_path: Path, project: str
) -> None:
    store = tmp_path / "store"
    async with Bus(kafka) as bus:
        async with running(curate(kafka, store)):
            await bus.publish(spec_of(project), *records(project))
            (first,) = await versions(bus, project)
        shutil.rmtree(store / "records")
        async with running(curate(kafka, store)):
            await bus.publish(*reversed(records(project)))
            command = DatasetRequested(project=project, reason=BuildReason.COMMAND, request="again")
            await bus.publish(new_event(command, source="/test"))
            (rejected,) = await bus.collect(topics.DATASET_REJECTED, 1, where=lambda e: e.project == project)
    assert first.data.dataset_id in rejected.data.reasons[0]
    assert rejected.data.funnel[0].entered == 40


def documents(project: str) -> list[Envelope[RecordIngested]]:
    """The example's SOPs, cut into sections as ingest cuts them."""
    from tunewheel_ingest.parsing.markdown import sections_of, title_of

    made: list[Envelope[RecordIngested]] = []
    for path in sorted(SOPS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        data = RecordIngested(
            project=project,
            record_id=content_id("rec", [project, text]),
            kind=RecordKind.DOCUMENT,
            source_id=path.name,
            source_event_id=f"event-{path.stem}",
            title=title_of(text),
            input=text,
            sections=sections_of(text),
            group=path.name,
        )
        made.append(new_event(data, source="/test"))
    return made


@pytest.mark.nightly("matrices")
async def test_documents_become_examples_counted_in_the_models_own_tokens(
    kafka: str, tmp_path: Path, project: str
) -> None:
    formats = {"documents": {"chunks": {"enabled": True, "max_tokens": 128}, "questions": {"enabled": True}}}
    sops = documents(project)
    build = {"min_new_records": 40 + len(sops), "quiet_seconds": None}
    spec = declared(project, dataset={"min_examples": 20, "build": build, "formats": formats})
    async with Bus(kafka) as bus, running(curate(kafka, tmp_path / "store")) as service:
        await bus.publish(*sops)
        await _table_holds(service, project, len(sops))
        await bus.publish(spec, *records(project))
        (event,) = await versions(bus, project)
        manifest = DatasetManifest.model_validate_json(await service.store.get(event.data.manifest))
        train = pl.read_parquet(await service.store.get(manifest.train))
        holdout = pl.read_parquet(await service.store.get(manifest.holdout))
        assert manifest.lineage is not None
        assert manifest.card is not None
        lineage = pl.read_parquet(await service.store.get(manifest.lineage))
        card = (await service.store.get(manifest.card)).decode()
        pinned = await service.store.list("builds")
    assert len(sops) >= 14
    assert set(holdout["format"]) == {"answer"}
    by_format = dict(train["format"].value_counts().iter_rows())
    assert by_format["chunk"] >= 60
    assert by_format["question"] >= 60
    assert manifest.counts.formats == by_format | {"answer": by_format["answer"] + holdout.height}
    used = lineage.filter(pl.col("kind") == "document")
    assert used["example_id"].null_count() == 0
    assert used["record_id"].n_unique() == len(sops)
    assert manifest.tokenizer is not None
    assert manifest.tokenizer.sha256 is not None
    assert manifest.tokenizer.verified == train.height + holdout.height
    assert "questions are extractive" in card
    assert sorted(path.rpartition("/")[2] for path in pinned) == ["inputs.json", "retired.json"]


@pytest.mark.nightly("matrices")
async def test_a_new_text_of_a_document_alone_becomes_a_version_even_after_a_restart(
    kafka: str, tmp_path: Path, project: str
) -> None:
    def version_of(sop: Envelope[RecordIngested], added: str) -> Envelope[RecordIngested]:
        text = f"{sop.data.input}\n\n{added}"
        changed = {"record_id": content_id("rec", [project, text]), "input": text, "sections": ()}
        return new_event(sop.data.model_copy(update=changed), source="/test")

    formats = {"formats": {"documents": {"chunks": {"enabled": True}}}}
    silent, quick = (
        {"quiet_seconds": 0.5, "quiet_min_records": 1, "min_new_records": least} for least in (1000, 1)
    )
    sop, store = documents(project)[0], tmp_path / "store"
    added = "Bells that ring by themselves go back to the workshop in Tallowmere on Thursdays."
    async with Bus(kafka) as bus:
        async with running(curate(kafka, store)):
            # The spec last: a stall of whoever publishes is a silence.
            await bus.publish(*records(project), sop, spec_of(project, formats, **silent))
            (first,) = await versions(bus, project)
        # While nobody curates: the text that was built again, and another one.
        await bus.publish(sop, version_of(sop, added))
        async with running(curate(kafka, store)) as service:
            _, second = await versions(bus, project, 2)
            manifest = DatasetManifest.model_validate_json(await service.store.get(second.data.manifest))
            train = pl.read_parquet(await service.store.get(manifest.train))
        await bus.publish(spec_of(project, formats, **quick))
        async with running(curate(kafka, store)):
            await bus.publish(version_of(sop, "Nobody answers calls on Fridays, so write a letter instead."))
            *_, third = await versions(bus, project, 3)
    assert first.data.reason is second.data.reason is BuildReason.QUIET
    assert third.data.reason is BuildReason.COUNT
    assert added in str(train["messages"].to_list())
    assert second.data.counts.holdout == first.data.counts.holdout


@pytest.mark.nightly("matrices")
async def test_silence_builds_what_there_is(kafka: str, tmp_path: Path, project: str) -> None:
    async with Bus(kafka) as bus, running(curate(kafka, tmp_path / "store")):
        await bus.publish(*records(project)[:30])  # kept before the project is known
        await bus.publish(spec_of(project, min_new_records=1000, quiet_seconds=0.5))
        (event,) = await versions(bus, project)
    assert event.data.reason is BuildReason.QUIET
    assert event.data.counts.examples == 30


@pytest.mark.nightly("matrices")
async def test_too_few_examples_are_refused_with_the_fix(kafka: str, tmp_path: Path, project: str) -> None:
    async with Bus(kafka) as bus, running(curate(kafka, tmp_path / "store")):
        await bus.publish(spec_of(project, min_new_records=5), *records(project)[:5])
        (rejected,) = await bus.collect(topics.DATASET_REJECTED, 1, where=lambda e: e.project == project)
        unknown = DatasetRequested(project=f"{project}-x", reason=BuildReason.COMMAND, request="r")
        await bus.publish(new_event(unknown, source="/test"))
        letters = await bus.dead_letters("dataset.requested", 1, about=project)
    assert rejected.data.reasons[0].startswith("dataset.min_examples: 5 clean examples")
    assert letters[0].field == "project"
    assert "not declared" in letters[0].reason


@pytest.mark.nightly("matrices")
async def test_a_project_that_floods_and_whose_source_is_away_holds_up_no_other_project(
    kafka: str, tmp_path: Path, project: str
) -> None:
    """The requests of all are in one partition, the flood's first, and there is one slot. After a failure the
    flood's first build waits for longer than this test; nothing of the flood is lost with its process."""
    count = topics.DATASET_REQUESTED.partitions
    flood, *others = (name for n in range(100) if partition_of(name := f"{project}-{n}", count) == count - 1)
    others = others[:2]
    asked = [DatasetRequested(project=flood, reason=BuildReason.COMMAND, request=f"{n}") for n in range(4)]
    away = {"replay": {"source": "http://127.0.0.1:9/general.jsonl"}}
    store, settings = tmp_path / "store", {"build_retry_seconds": 3_600.0, "spec_hosts": "127.0.0.1"}
    async with Bus(kafka) as bus:
        async with running(curate(kafka, store, **settings)):
            await bus.publish(spec_of(flood, away, min_new_records=1_000), *records(flood))
            await bus.publish(*(new_event(data, source="/test") for data in asked))
            await until(lambda: any(store.glob("attempts/curate/*/*.failure.json")))
            for name in others:
                await bus.publish(spec_of(name), *records(name))
            for name in others:
                (made,) = await versions(bus, name)
                assert made.data.counts.examples == 40
        await bus.publish(spec_of(flood, min_new_records=1_000))
        async with running(curate(kafka, store, **settings)):
            (made,) = await versions(bus, flood)
            rejected = await bus.collect(topics.DATASET_REJECTED, 3, where=lambda e: e.project == flood)
    assert all(made.data.dataset_id in event.data.reasons[0] for event in rejected)
    assert len({event.causation_id for event in rejected}) == 3, "each request has its answer"
    assert not any(store.glob("attempts/curate/*/*")), "what ended well, or was rejected, counts no attempts"


@pytest.mark.nightly("matrices")
async def test_persistent_drift_asks_for_one_version(kafka: str, tmp_path: Path, project: str) -> None:
    """Each window of each detector alarms; the service is replaced in between, and reads them all again."""
    first, *others = (_alarm(project, number) for number in range(6))
    async with Bus(kafka) as bus:
        async with running(curate(kafka, tmp_path / "store")) as service:
            await bus.publish(spec_of(project, min_new_records=1000), *records(project))
            await _table_holds(service, project, 40)
            await bus.publish(first)
            (event,) = await versions(bus, project)
            await bus.publish(*others[:3])
        async with running(curate(kafka, tmp_path / "store")):
            await bus.publish(*others[3:])
            # What is asked for by command is answered after whatever the alarms asked for.
            asked = DatasetRequested(project=project, reason=BuildReason.COMMAND, request="again")
            await bus.publish(new_event(asked, source="/test"))
            await bus.collect(topics.DATASET_REJECTED, 1, where=lambda e: e.project == project)
        # Handler and watch may both publish one request, by the same id.
        seen: dict[str, Envelope[DatasetRequested]] = {}

        def is_third(request: Envelope[DatasetRequested]) -> bool:
            if request.project == project:
                seen.setdefault(request.id, request)
            return len(seen) == 3

        await bus.collect(topics.DATASET_REQUESTED, 1, where=is_third)
    requests = list(seen.values())
    assert [request.data.reason.value for request in requests] == ["drift", "command", "command"]
    assert event.data.reason is BuildReason.DRIFT
    assert event.causation_id == requests[0].id
    assert (requests[0].causation_id, requests[0].data.alarm_ids) == (first.id, ("alarm-0",))
    named = next(request for request in requests if request.causation_id == requests[1].id)
    assert set(named.data.alarm_ids) == {f"alarm-{number}" for number in range(6)}


def _alarm(project: str, number: int) -> Envelope[DriftDetected]:
    at = datetime(2026, 1, 1, number, tzinfo=UTC)
    window = DriftWindow(
        first_completion_id=f"a-{number}",
        last_completion_id=f"b-{number}",
        completions=10,
        started_at=at,
        ended_at=at,
    )
    drift = DriftDetected(
        project=project,
        detector="format",
        signal="format",
        alarm_id=f"alarm-{number}",
        suggested_action="retrain",
        statistic_name="invalid",
        statistic=0.5,
        p_value=0.001,
        threshold=0.01,
        dataset_id="ds-before",
        model_id="m",
        window=window,
    )
    return new_event(drift, source="/test")


async def _table_holds(service: Service, project: str, count: int) -> None:
    from tunewheel_curate.records.table import RecordTable

    assert service.store.local_root is not None
    table = RecordTable(str(service.store.local_root / "records"))
    await until(lambda: table.arrivals().filter(pl.col("project") == project).height >= count)


@pytest.mark.nightly("matrices")
async def test_records_that_were_removed_from_the_log_are_missed_loudly(
    fresh_kafka: str, tmp_path: Path, project: str
) -> None:
    async with Bus(fresh_kafka) as bus:
        await bus.publish(*records(project)[:4])
    admin = AIOKafkaAdminClient(bootstrap_servers=fresh_kafka)
    await admin.start()
    try:
        removed = RecordsToDelete(before_offset=-1)  # all there are
        await admin.delete_records({TopicPartition("record.ingested", n): removed for n in range(3)})
    finally:
        await admin.close()
    service = curate(fresh_kafka, tmp_path / "store")
    async with running(service):
        told = service.health.state()["warnings"]
    gone = re.findall(r"(\d+) records of record.ingested, partition \d, offsets 0 to", str(told))
    assert sum(map(int, gone)) == 4

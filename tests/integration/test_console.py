"""What the console reads from, and writes to, a real broker. Its page is in ``tests/browser``."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from tunewheel_console.actions import Actions
from tunewheel_console.archive import Archive
from tunewheel_console.checkpoint import Checkpoint
from tunewheel_console.control.log import RECORDS_FROM, Documents, Log
from tunewheel_console.control.projects import summary_of
from tunewheel_console.letters import Traffic
from tunewheel_console.main import TRAFFIC
from tunewheel_console.settings import Settings
from tunewheel_console.state import ConsoleState
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRequested, RecordIngested, RecordKind
from tunewheel_contracts.events.evaluation import ReviewRequested, ReviewSubmitted
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_contracts.events.upstream import DocumentPublished, FeedbackReceived
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.index import IndexCounts
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.deadletter import Undecoded
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.service import Service
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.specs import declared

from .bus import PATIENCE_SECONDS, Bus, running, until
from .verdicts import passed

pytestmark = pytest.mark.integration


def settings(kafka: str, tmp_path: Path) -> Settings:
    return Settings(bootstrap_servers=kafka, store_url=tmp_path.as_uri())


async def test_what_people_do_is_on_the_log(kafka: str, tmp_path: Path, project: str):
    service = Service("console", settings(kafka, tmp_path))
    judged = passed(project, 1)
    asked = new_event(ReviewRequested.model_validate(judged.data.model_dump()), source="/test", cause=judged)
    actions, ann = Actions(service), Principal(name="ann")
    async with Bus(kafka) as bus, running(service):
        await actions.review(asked, reviewer="Ann", principal=ann, verdict="rejected", comment="too curt")
        for who in (ann, None):
            await actions.give(
                DatasetRequested, project=project, reason=BuildReason.COMMAND, principal=who, request=None
            )
        cancel = {"run_id": "run-1", "action": TrainAction.CANCEL, "principal": ann, "request": None}
        await actions.give(TrainControl, project=project, **cancel)
        (review,) = await bus.collect(topics.REVIEW_SUBMITTED, 1, where=lambda e: e.project == project)
        builds = await bus.collect(topics.DATASET_REQUESTED, 2, where=lambda e: e.project == project)
        (control,) = await bus.collect(topics.TRAIN_CONTROL, 1, where=lambda e: e.project == project)
    assert (review.data.verdict, review.data.reviewer, review.data.comment) == ("rejected", "Ann", "too curt")
    assert review.data.principal == control.data.principal == ann
    assert {build.data.principal for build in builds} == {ann, None}
    assert review.source == "/tunewheel/console"
    assert (review.causation_id, review.correlation_id) == (asked.id, asked.correlation_id)
    assert review.data.run_id == asked.data.run_id
    assert len({event.id for event in builds}) == 2
    assert control.data.action is TrainAction.CANCEL


async def test_a_console_that_starts_again_reads_what_came_since(kafka: str, tmp_path: Path, project: str):
    read: list[str] = []

    def console() -> tuple[Service, ConsoleState, Archive]:
        service, state = Service("console", settings(kafka, tmp_path)), ConsoleState()
        archive = Archive(state, Checkpoint(service.store), rules="1", failed=service.fail)

        async def keep(record: Undecoded) -> bool:
            read.append(record.headers.get("ce_id", b"").decode())
            return await archive.keep(record)

        archive.reader = service.replay_at(
            (topics.EVAL_PASSED, topics.TRAIN_CONTROL, topics.PROJECT_DECLARED),
            lambda event, _: state.apply(event), forget=state.forget, begins=archive.begins, keep=keep,
        )  # fmt: skip
        service.on_startup(archive.start)
        service.on_shutdown(archive.stop)
        return service, state, archive

    judged, spec = [passed(project, n) for n in (1, 2, 3)], declared(project)
    async with Bus(kafka) as bus:
        await bus.publish(spec, *judged[:2])
        service, state, archive = console()
        async with running(service):
            await until(lambda: archive._written is not None)
            await until(lambda: len(state.projects[project].runs) == 2)
            await bus.publish(judged[2])
            await until(lambda: len(state.projects[project].runs) == 3)
        said = summary_of(state.projects[project])
        pause = new_event(
            TrainControl(project=project, run_id="run-9", action=TrainAction.PAUSE, request="r"),
            source="/test",
        )
        await bus.publish(pause)
        read.clear()
        service, state, _ = console()
        async with running(service):
            await until(lambda: "run-9" in state.projects[project].runs)
            assert {spec.id, judged[1].id, judged[2].id, pause.id} <= {*read}
            assert judged[0].id not in read, (
                "of the copy the last one alone, which says that the log is the same"
            )
            assert len(state.projects[project].runs) == 4
            assert summary_of(state.projects[project]).declared == said.declared


async def test_busy_topics_are_read_from_their_latest_and_dead_letters_told(
    kafka: str, tmp_path: Path, project: str
):
    def feedback(n: int) -> FeedbackReceived:
        return FeedbackReceived(
            project=project, feedback_id=f"f-{n}", completion_id="same", rating="down"
        )  # one key: one partition

    state = ConsoleState()
    review = ReviewSubmitted(project=project, run_id="run-1", reviewer="eve", verdict="approved")
    refused = new_event(review, source="/test")
    state.apply(refused)
    told, letters = list[str](), list[str]()

    def take(event: Envelope[Any]) -> None:
        state.apply(event)
        if isinstance(event.data, FeedbackReceived) and event.project == project:
            told.append(event.data.feedback_id)

    traffic = Traffic(
        settings(kafka, tmp_path),
        TRAFFIC,
        take,
        refuse=state.refuse,
        told=lambda letter, _: letters.append(letter.position.topic),
        latest=3,
    )
    async with Bus(kafka) as bus:
        await bus.publish(*(new_event(feedback(n), source="/test") for n in range(5)))
        await bus.send("example.published.dlq", b"x", b"{", {})
        await bus.send("review.submitted.dlq", b"x", b"{", {})
        letter = refused.to_kafka()
        await bus.send("review.submitted.dlq", letter.key, letter.value, letter.headers)
        await traffic.start()
        try:
            await until(lambda: told == ["f-2", "f-3", "f-4"])
            await bus.publish(new_event(feedback(5), source="/test"))
            await until(lambda: told == ["f-2", "f-3", "f-4", "f-5"])
            await until(lambda: "example.published.dlq" in letters)
            await until(lambda: not state.projects[project].runs["run-1"].reviews)
        finally:
            await traffic.stop()


async def test_the_control_api_asks_the_broker_for_documents_and_for_ingests_place(
    kafka: str, tmp_path: Path, project: str
):
    def document(name: str) -> Envelope[DocumentPublished]:
        data = DocumentPublished(project=project, document_id=name, content="x")
        return new_event(data, source="/test")

    def record(name: str, kind: RecordKind) -> Envelope[RecordIngested]:
        given = {"project": project, "record_id": f"rec-{kind}", "source_event_id": "e", "group": name}
        return new_event(RecordIngested(**given, kind=kind, source_id=name, input="x"), source="/test")

    async def nothing() -> None: ...

    made = settings(kafka, tmp_path)
    store = ObjectStore(made.store_url)
    documents = Documents(made, store)
    log = Log.of(made, nothing, documents)
    async with Bus(kafka) as bus:
        try:
            await bus.publish(document("a.md"))
            assert await documents.of(project) == {"a.md"}
            await bus.publish(document("b.md"))
            assert await documents.of(project) == {"a.md", "b.md"}
            await bus.publish(record("c.md", RecordKind.DOCUMENT), record("T-1", RecordKind.TICKET))
            assert await documents.of(project) == {"a.md", "b.md", "c.md"}, "its own event may be deleted"
            table = BytesIO()
            pl.DataFrame({"document_id": ["c.md", "older.md"]}).write_parquet(table)
            ref = await store.put(f"indexes/{project}/versions/v.parquet", table.getvalue())
            await bus.publish(indexed(project, ref))
            assert await documents.of(project) == {"a.md", "b.md", "c.md", "older.md"}
            await store.delete([ref.path])
            assert await documents.of(project) == {"a.md", "b.md", "c.md"}
            assert await documents.of("another") == set()
            with pytest.raises(Refused, match="events behind"):
                await log.settled(0.0)
            await commit_all(kafka)
            await log.settled(PATIENCE_SECONDS)
        finally:
            await documents.close()


def indexed(project: str, versions: ArtifactRef) -> Envelope[IndexVersioned]:
    data = IndexVersioned.model_construct(
        project=project, index_id="ix-1", manifest=versions, retrieval_sha256="0" * 64,
        counts=IndexCounts(documents=2, passages=2, tokens=9), changed=2, versions=versions, records_upto={},
        withdrawals_upto={}, erasures_upto={},
    )  # fmt: skip
    return new_event(data, source="/test")


async def commit_all(kafka: str) -> None:
    """Commit the ends of what ingest reads, as ingest does once it has read it."""
    for topic in RECORDS_FROM:
        (group,) = topic.groups_of("ingest")
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False)
        await consumer.start()
        try:
            partitions = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
            consumer.assign(partitions)
            await consumer.commit(await consumer.end_offsets(partitions))
        finally:
            await consumer.stop()

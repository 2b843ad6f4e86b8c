"""Which requests follow from what happened: a real table and the handlers' answers; the log is a list."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from aiokafka import TopicPartition
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRejected, DatasetRequested, DatasetVersioned
from tunewheel_contracts.events.production import DriftDetected, DriftWindow
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.upstream import DocumentWithdrawn, ErasureRequested, ProjectDeclared
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetCounts
from tunewheel_contracts.formats.index import IndexCounts
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec, RetrievedTraining
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.principal import Principal
from tunewheel_curate.builds.building import Builder, BuildFailed, BuildStopped, WorkerFailed
from tunewheel_curate.builds.log_state import LogState
from tunewheel_curate.builds.order import BuildOrder, BuildOutcome
from tunewheel_curate.curation import Curation
from tunewheel_curate.records.log import MissingRecords
from tunewheel_curate.records.table import RecordTable
from tunewheel_curate.settings import Settings
from tunewheel_runtime.attempts import Attempts
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.service import Lease, LeaseLost, Position, Service
from tunewheel_runtime.slots import Slots
from tunewheel_runtime.store import ObjectStore

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Projects:
    """One declared project."""

    def __init__(self, spec: Any) -> None:
        self._declared = new_event(ProjectDeclared(project="shop", spec=spec), source="/test")

    def get(self, _: str) -> Any:
        return self._declared

    async def fresh(self, _: str) -> Any:
        return self._declared

    def knows_only_in_part(self, *unknown: str) -> None:
        self._declared = replace(self._declared, unknown=unknown)


class Indexes:
    """The newest index of a project, if any."""

    def __init__(self) -> None:
        self.newest: Envelope[IndexVersioned] | None = None

    def get(self, _: str) -> Envelope[IndexVersioned] | None:
        return self.newest

    async def fresh(self, _: str) -> Envelope[IndexVersioned] | None:
        return self.newest


class DyingBuilder(Builder):
    """The processes that carry builds out end in ``deaths``, one after the other, then in order."""

    def __init__(self) -> None:
        super().__init__()
        self.deaths: list[Exception] = []
        self.begun = 0
        self.indexes: list[ArtifactRef | None] = []

    async def _run(self, order: BuildOrder, stop: asyncio.Event) -> BuildOutcome:
        self.begun += 1
        self.indexes.append(order.index)
        if self.deaths:
            raise self.deaths.pop(0)
        return BuildOutcome(rows_sha256="0" * 64, rejections=("dataset.min_examples: 3 clean examples",))


class Desk:
    """Curation of one project. What is published is known once the log is read again."""

    def __init__(self, folder: Path, spec: Any, records: Any, **identity: Any) -> None:
        self._folder, self._made = folder, (spec, records)
        store = folder / "store"
        self.log: list[Envelope[Any]] = []
        self.state = LogState()
        self.table = RecordTable(str(store / "records"))
        self.builder, self.slots = DyingBuilder(), Slots(1)
        self._rows = records(*({"partition": 0, "offset": n} for n in range(5)))
        service = Service("curate", Settings(store_url=store.as_uri(), **identity))
        self.indexes, self.store = Indexes(), service.store
        self.projects = Projects(spec())
        self.curation = Curation(
            service,
            table=self.table,
            projects=self.projects,  # type: ignore[arg-type]
            indexes=self.indexes,  # type: ignore[arg-type]
            state=self.state,
            followed=self,  # type: ignore[arg-type]
            missing=MissingRecords(service.store, service.health.warn),
            builder=self.builder,
            attempts=Attempts(ObjectStore(store.as_uri()), "curate", limit=3),
            slots=self.slots,
            backoff=Backoff(3, 0.0, 0.0),
            catch_up=self.catch_up,
        )
        self.arrived = 3

    async def refresh(self) -> None:
        for offset, event in enumerate(self.log):
            self.state.apply(event, Position(event.data.type, 0, offset))

    async def catch_up(self) -> None:
        self.table.append(self._rows[: self.arrived])

    def restart(self) -> None:
        """A service of the same store that knows what the log says."""
        self.__init__(self._folder, *self._made)

    async def build(self) -> DatasetRejected:
        data = DatasetRequested(
            project="shop", reason=BuildReason.COMMAND, request="by hand", records_upto={"0": 3}
        )
        lease = Lease(TopicPartition("dataset.requested", 0))
        answer = await self.curation.answer(new_event(data, source="/test"), lease)
        assert answer is not None
        return answer.data

    async def drift(self, detector: str) -> Envelope[DatasetRequested] | None:
        event = alarm(detector)
        self.log.append(event)
        return await self.curation.turn_for(event)


def alarm(detector: str) -> Envelope[DriftDetected]:
    window = DriftWindow(
        first_completion_id="a", last_completion_id="b", completions=10, started_at=NOON, ended_at=NOON
    )
    data = DriftDetected.model_validate(
        {
            "project": "shop",
            "detector": detector,
            "statistic_name": "ks",
            "statistic": 0.5,
            "p_value": 0.001,
            "threshold": 0.01,
            "dataset_id": "ds-before",
            "model_id": "m",
            "window": window,
        }
    )
    return new_event(data, source="/test")


def rejected(request: Envelope[DatasetRequested]) -> Envelope[DatasetRejected]:
    data = DatasetRejected(project="shop", spec_sha256="0" * 64, rows_sha256="0" * 64, reasons=("no",))
    return new_event(data, source="/test", cause=request)


def versioned(name: str, cause: Envelope[DatasetRequested] | None = None) -> Envelope[DatasetVersioned]:
    """A version whose files are gone: nobody can tell that it does not use a document."""
    data = DatasetVersioned(
        project="shop",
        dataset_id=name,
        manifest=ArtifactRef(path=name, sha256="0" * 64, size_bytes=1),
        spec_sha256="0" * 64,
        criteria_sha256="0" * 64,
        base_model="b",
        counts=DatasetCounts(records=1, examples=1, train=1, holdout=0),
        funnel=(),
        records_upto={"0": 3},
    )
    return new_event(data, source="/test", cause=cause)


@pytest.fixture
def desk(tmp_path: Path, spec, records) -> Desk:
    return Desk(tmp_path, spec, records)


async def test_an_alarm_is_one_request_that_names_its_records(desk: Desk) -> None:
    request = await desk.drift("input")
    assert request is not None
    assert (request.data.reason, request.data.records_upto) == (BuildReason.DRIFT, {"0": 3})
    assert (request.causation_id, request.data.alarm_ids) == (alarm("input").id, (alarm("input").id,))
    desk.log.append(request)
    desk.arrived = 5
    assert await desk.drift("input") is None, "delivered again"
    desk.log.append(rejected(request))
    assert await desk.drift("input") is None, "delivered again, after all"


async def test_what_another_replica_asked_for_meanwhile_is_not_asked_for_again(desk: Desk) -> None:
    request = await desk.drift("input")
    assert request is not None
    again = await desk.curation.request_for_drift("shop")
    assert again is not None
    assert again.id == request.id, "it was killed before it published"
    desk.log.append(request)  # by another one
    assert await desk.curation.request_for_drift("shop") is None


async def test_a_command_is_for_the_alarms_that_are_open(desk: Desk) -> None:
    desk.log.append(alarm("input"))
    command = DatasetRequested(project="shop", reason=BuildReason.COMMAND, request="by hand")
    lease = Lease(TopicPartition("dataset.requested", 0))
    named = await desk.curation.answer(new_event(command, source="/test"), lease)
    assert named is not None
    assert named.data.alarm_ids == (alarm("input").id,)
    desk.log.append(named)
    assert await desk.curation.request_for_drift("shop") is None
    told = desk.curation.decision("shop")
    assert told is not None
    assert (told.step, told.alarms) == ("no alarm is open", ())


async def test_a_release_is_for_the_records_of_the_version_that_waits(desk: Desk) -> None:
    """Records that came since are not in it, and nothing is released that does not wait."""
    waits = DatasetRejected(
        project="shop", spec_sha256="a" * 64, rows_sha256="b" * 64, reasons=("held",), held="ds-1",
        records_upto={"0": 2},
    )  # fmt: skip
    desk.log.append(new_event(waits, source="/test"))
    lease = Lease(TopicPartition("dataset.requested", 0))
    command = DatasetRequested(project="shop", reason=BuildReason.COMMAND, request="by hand", release="ds-1")
    named = await desk.curation.answer(new_event(command, source="/test"), lease)
    assert named is not None
    assert (named.data.records_upto, named.data.release) == ({"0": 2}, "ds-1")
    other = command.model_copy(update={"release": "ds-2"})
    with pytest.raises(InvalidEvent) as caught:
        await desk.curation.answer(new_event(other, source="/test"), lease)
    assert caught.value.field == "release"


async def test_no_version_is_released_that_another_one_followed(desk: Desk) -> None:
    """It lacks what the other one holds out. Another project's versions do not matter."""
    waits = DatasetRejected(
        project="shop", spec_sha256="a" * 64, rows_sha256="b" * 64, reasons=("held",), held="ds-1",
        records_upto={"0": 2},
    )  # fmt: skip
    history = desk.curation.state.history
    history.apply(new_event(waits, source="/test"))
    history.apply(new_event(versioned("ds-2").data.model_copy(update={"project": "desk"}), source="/test"))
    assert history.held("shop") == {"ds-1": {"0": 2}}
    history.apply(later := versioned("ds-3"))
    assert history.held("shop") == {}
    history.apply(new_event(waits.model_copy(update={"held": "ds-4"}), source="/test"))
    history.apply(later)
    assert history.held("shop") == {"ds-4": {"0": 2}}, "the version came before"


async def test_an_erasure_reaches_a_version_that_waits_for_a_person(desk: Desk) -> None:
    """Nothing was trained on its rows, so they go whatever the spec says of versions. Versions that were
    published stay, and those that do not hold the person."""
    desk.arrived = 5
    await desk.catch_up()
    waits = DatasetRejected(
        project="shop", spec_sha256="a" * 64, rows_sha256="b" * 64, reasons=("held",), held="ds-held",
        records_upto={"0": 5},
    )  # fmt: skip
    desk.log += [versioned("ds-first"), new_event(waits, source="/test")]
    desk.log.append(new_event(waits.model_copy(update={"held": "ds-other"}), source="/test"))
    for name, record_id in (("ds-first", "rec-0003"), ("ds-held", "rec-0003"), ("ds-other", "rec-0004")):
        pl.DataFrame({"record_ids": [[record_id]]}).write_parquet(file := BytesIO())
        await desk.store.put(f"datasets/{name}/train.parquet", file.getvalue())
        await desk.store.put(f"datasets/{name}/manifest.json", b'{"project": "shop"}')
    asked = ErasureRequested(project="shop", erasure_id="x", customer="customer-3", requested_by="privacy")
    desk.log.append(event := new_event(asked, source="/test", time=datetime(2027, 1, 1, tzinfo=UTC)))
    proof, request = await desk.curation.erase(event)
    assert proof.data.dataset_ids == ("ds-first", "ds-held")
    assert proof.data.deleted_dataset_ids == ("ds-held",)
    assert request.data.project == "shop", "the newest version holds the person"
    left = {path for path in await desk.store.list("datasets") if path.endswith(".parquet")}
    assert left == {"datasets/ds-first/train.parquet", "datasets/ds-other/train.parquet"}
    again = await desk.curation.erase(event)
    assert [one.id for one in again] == [proof.id, request.id], "delivered again"


async def test_an_erasure_asks_for_a_version_while_one_is_built_that_may_hold_the_person(desk: Desk) -> None:
    await desk.catch_up()
    building = DatasetRequested(
        project="shop", reason=BuildReason.COMMAND, request="r", records_upto={"0": 3}
    )
    desk.log.append(new_event(building, source="/test"))
    for customer, answers in (("customer-9", 1), ("customer-1", 2)):
        asked = ErasureRequested(project="shop", erasure_id="x", customer=customer, requested_by="privacy")
        desk.log.append(event := new_event(asked, source="/test", time=datetime(2027, 1, 1, tzinfo=UTC)))
        assert len(await desk.curation.erase(event)) == answers


async def test_a_build_that_dies_again_and_again_is_rejected_with_the_reason(desk: Desk) -> None:
    desk.builder.deaths = [BuildFailed("killed"), BuildFailed("too long"), BuildFailed("killed again")]
    rejected = await desk.build()
    assert rejected.reasons == (
        "build: gave up after 3 attempts; the last one: killed again. Remove the cause, then ask again",
    )
    assert rejected.records_upto == {"0": 3}
    assert desk.builder.begun == 3


@pytest.mark.parametrize("unknown", ["spec.criteria.over_best", "spec.dataset.pii.vault"])
async def test_no_version_is_built_from_a_spec_that_a_newer_release_wrote_in_part(
    desk: Desk, unknown: str
) -> None:
    desk.projects.knows_only_in_part(unknown)
    assert unknown in (await desk.build()).reasons[0]
    assert desk.builder.begun == 0


async def test_a_build_that_dies_once_is_built(desk: Desk) -> None:
    desk.builder.deaths = [BuildFailed("killed")]
    assert (await desk.build()).reasons == ("dataset.min_examples: 3 clean examples",)
    assert desk.builder.begun == 2


async def test_a_build_that_waits_for_a_slot_costs_no_attempt_and_reads_the_spec_when_it_begins(
    desk: Desk,
) -> None:
    """kill -9 while a hundred builds wait must not reject them as builds that killed their process."""
    async with desk.slots.hold("another", asyncio.Event(), job="long"):
        waiting = asyncio.create_task(desk.build())
        while not desk.slots._waiting:
            await asyncio.sleep(0)
        assert not await desk.store.list("attempts")
        desk.projects.knows_only_in_part("spec.dataset.pii.vault")
    assert "spec.dataset.pii.vault" in (await waiting).reasons[0]
    assert desk.builder.begun == 0


async def test_a_failed_attempt_waits_without_its_slot(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.builder.deaths = [BuildFailed("its teacher is away"), BuildFailed("still away")]
    held: list[object] = []

    async def pause(lease: Lease, seconds: float) -> None:
        async with desk.slots.hold("another", lease.lost, job="other") as slot:
            held.append(slot)

    monkeypatch.setattr(Lease, "pause", pause)
    async with asyncio.timeout(120):
        assert (await desk.build()).reasons == ("dataset.min_examples: 3 clean examples",)
    assert held == [0, 0]


async def test_a_request_that_was_answered_meanwhile_waits_for_no_slot(desk: Desk) -> None:
    request = new_event(
        DatasetRequested(project="shop", reason=BuildReason.COMMAND, request="r", records_upto={"0": 3}),
        source="/test",
    )
    desk.log += [request, rejected(request)]
    async with desk.slots.hold("another", asyncio.Event(), job="long"), asyncio.timeout(120):
        assert await answer_of(desk, request) is None


async def test_an_answer_that_did_not_reach_the_log_is_given_again(desk: Desk) -> None:
    """The broker was away when it was published, or the partition moved, and came back."""
    first = await desk.build()
    assert await desk.build() == first
    command = DatasetRequested(project="shop", reason=BuildReason.COMMAND, request="another")
    named = [await answer_of(desk, new_event(command, source="/test")) for _ in range(2)]
    assert named[0] is not None
    assert named[1] is None, "the log has it"


async def test_an_error_that_stops_the_service_is_counted_over_its_restarts(desk: Desk) -> None:
    for _ in range(2):
        desk.builder.deaths = [ValueError("never seen")]
        with pytest.raises(ValueError, match="never seen"):
            await desk.build()
        desk.restart()
    desk.builder.deaths = [ValueError("never seen")]
    assert "the last one: ValueError" in (await desk.build()).reasons[0]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (BuildStopped("the service is stopping"), LeaseLost),
        (WorkerFailed("no memory to load"), WorkerFailed),
        (TransientError("the store is away"), TransientError),
        (OSError("disk full"), OSError),
    ],
    ids=repr,
)
async def test_what_is_no_fault_of_the_project_costs_it_no_attempt(
    desk: Desk, error: Exception, raised: type[Exception]
) -> None:
    for _ in range(4):
        desk.builder.deaths = [error]
        with pytest.raises(raised):
            await desk.build()
    assert (await desk.build()).reasons == ("dataset.min_examples: 3 clean examples",)


async def test_a_withdrawal_is_one_request_too(desk: Desk) -> None:
    open_build = DatasetRequested(
        project="shop", reason=BuildReason.COMMAND, request="by hand", records_upto={"0": 1}
    )
    desk.log.append(new_event(open_build, source="/test"))
    withdrawn = new_event(DocumentWithdrawn(project="shop", document_id="sop.md"), source="/test")
    request = await desk.curation.withdraw(withdrawn)
    assert request is not None
    assert request.data.records_upto == {"0": 3}
    desk.log.append(request)
    desk.arrived = 5
    assert await desk.curation.withdraw(withdrawn) is None


async def test_a_document_that_came_back_is_withdrawn_again(desk: Desk) -> None:
    withdrawn = new_event(DocumentWithdrawn(project="shop", document_id="sop.md"), source="/test")
    desk.log.append(versioned("ds-1"))
    first = await desk.curation.withdraw(withdrawn)
    assert first is not None
    desk.log += [first, versioned("ds-2", first)]
    again = new_event(withdrawn.data, source="/test")
    assert again.id == withdrawn.id
    second = await desk.curation.withdraw(again)
    assert second is not None, "the newest version may hold it once more"
    desk.log.append(second)
    assert await desk.curation.withdraw(again) is None


KEYS = {"olga": ["operator"], "eve": ["viewer"]}


class Guarded(Desk):
    """Curation that asks who asks, by a file of keys."""

    def __init__(self, folder: Path, spec: Any, records: Any) -> None:
        self.file = folder / "keys.yaml"
        if not self.file.exists():
            self.allow(KEYS)
        super().__init__(folder, spec, records, identity="required", api_keys_file=self.file)

    def allow(self, roles: dict[str, list[str]]) -> None:
        keys = {name: {"sha256": content_sha256(name.encode()), "roles": of} for name, of in roles.items()}
        self.file.write_text(yaml.safe_dump({"keys": keys}))

    async def ask(self, by: str | None) -> Envelope[Any] | None:
        principal = None if by is None else Principal(name=by)
        data = DatasetRequested(
            project="shop", reason=BuildReason.COMMAND, request="by hand", principal=principal
        )
        lease = Lease(TopicPartition("dataset.requested", 0))
        return await self.curation.answer(new_event(data, source="/test"), lease)


@pytest.fixture
def guarded(tmp_path: Path, spec, records) -> Guarded:
    return Guarded(tmp_path, spec, records)


@pytest.mark.parametrize(("by", "reason"), [("eve", "eve lacks the role operator"), (None, "is missing")])
async def test_a_build_is_not_for_everybody_to_ask_for(guarded: Guarded, by: str | None, reason: str) -> None:
    with pytest.raises(InvalidEvent, match=reason) as caught:
        await guarded.ask(by)
    assert caught.value.field == "principal"
    assert not guarded.state.history.is_building("shop")


async def test_a_build_that_was_accepted_ends_when_its_operator_lost_the_role(guarded: Guarded) -> None:
    request = await guarded.ask("olga")
    assert request is not None
    assert request.data.records_upto == {"0": 3}
    guarded.log.append(request)
    guarded.allow({"eve": ["viewer"]})
    guarded.restart()
    guarded.log.append(request)
    assert await guarded.ask("olga") is None, "delivered again"
    answer = await guarded.curation.answer(request, Lease(TopicPartition("dataset.requested", 0)))
    assert answer is not None
    assert isinstance(answer.data, DatasetRejected)


async def test_curates_own_requests_need_nobody(guarded: Guarded) -> None:
    assert isinstance(await guarded.build(), DatasetRejected)


def indexed(name: str) -> Envelope[IndexVersioned]:
    ref = ArtifactRef(path=f"indexes/shop/{name}/manifest.json", sha256=content_sha256(b"{}"), size_bytes=2)
    data = IndexVersioned(
        project="shop", index_id=name, manifest=ref, retrieval_sha256="0" * 64, versions=ref,
        counts=IndexCounts(documents=1, passages=1, tokens=1), records_upto={}, withdrawals_upto={},
        erasures_upto={},
    )  # fmt: skip
    return new_event(data, source="/test")


@pytest.fixture
def reading(tmp_path: Path, spec, records) -> Desk:
    """Curation of a project that trains with passages."""
    retrieval = RetrievalSpec(training=RetrievedTraining())
    return Desk(tmp_path, lambda: spec().model_copy(update={"retrieval": retrieval}), records)


async def answer_of(desk: Desk, event: Envelope[Any]) -> Envelope[Any] | None:
    desk.log.append(event)
    answer = await desk.curation.answer(event, Lease(TopicPartition("dataset.requested", 0)))
    if answer is not None:
        desk.log.append(answer)
    return answer


def named(upto: dict[str, int] | None) -> Envelope[DatasetRequested]:
    data = DatasetRequested(project="shop", reason=BuildReason.COUNT, request="3 records", records_upto=upto)
    return new_event(data, source="/test")


async def test_a_build_waits_for_the_first_index_over_restarts(reading: Desk) -> None:
    """And nothing else is asked for meanwhile: what comes is in it."""
    waits = await answer_of(reading, named({"0": 3}))
    assert waits is not None
    assert (waits.data.awaits_index, waits.data.records_upto) == (True, None)
    assert await answer_of(reading, waits) is None
    log = reading.log
    reading.restart()
    reading.log = log
    await reading.refresh()
    assert await reading.curation.requests_that_waited("shop") == []
    assert await reading.drift("input") is None
    assert await reading.curation.holds("shop", BuildReason.QUIET)
    reading.arrived, reading.indexes.newest = 5, indexed("ix-1")
    (request,) = await reading.curation.requests_that_waited("shop")
    assert request.causation_id == waits.id
    assert (request.data.records_upto, request.data.index_id) == ({"0": 5}, "ix-1")
    reading.log.append(request)
    await reading.refresh()
    assert await reading.curation.requests_that_waited("shop") == []
    built = await answer_of(reading, request)
    assert isinstance(built.data, DatasetRejected)
    assert reading.builder.begun == 1


async def test_a_project_that_trains_without_passages_after_all_waits_no_more(reading: Desk, spec) -> None:
    waits = await answer_of(reading, named({"0": 3}))
    assert waits is not None
    await reading.refresh()
    reading.curation.projects = Projects(spec())  # type: ignore[assignment]
    (request,) = await reading.curation.requests_that_waited("shop")
    assert (request.data.records_upto, request.data.index_id) == ({"0": 3}, None)


async def test_every_attempt_takes_passages_from_the_index_that_its_request_names(reading: Desk) -> None:
    """A newer one is of the next build, unless the named one is deleted."""
    first, second = indexed("ix-1"), indexed("ix-2")
    await reading.store.put(first.data.manifest.path, b"{}")
    reading.indexes.newest = first
    request = await reading.drift("input")
    assert request is not None
    assert request.data.index == first.data.manifest
    reading.indexes.newest = second
    reading.builder.deaths = [BuildFailed("killed")]
    await answer_of(reading, request)
    assert reading.builder.indexes == [first.data.manifest] * 2
    await reading.store.delete([first.data.manifest.path])
    reading.log.clear()
    reading.restart()
    reading.indexes.newest = second
    await answer_of(reading, request)
    assert reading.builder.indexes == [second.data.manifest]

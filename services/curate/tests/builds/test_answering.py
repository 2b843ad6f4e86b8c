"""Versions one after the other, on a real table and store; only the log is told by hand.

The builds run in this process: the worker's own has ``test_building.py``.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import (
    BuildReason,
    DatasetRejected,
    DatasetRequested,
    DatasetVersioned,
    RecordKind,
)
from tunewheel_contracts.events.training import TrainFailed
from tunewheel_contracts.events.upstream import DocumentWithdrawn, ErasureRequested, ProjectDeclared
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.dataset import DatasetManifest, ExpectationResult
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.formats.look import Look, look_path
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_curate.builds.answering import Answering
from tunewheel_curate.builds.building import Builder, BuildFailed
from tunewheel_curate.builds.log_state import History, LogState
from tunewheel_curate.builds.one_build import run_build
from tunewheel_curate.builds.order import BuildOrder, BuildOutcome
from tunewheel_curate.documents.teaching import lesson_path, note_sources
from tunewheel_curate.outcomes import OutcomeCache
from tunewheel_curate.records.log import MissingRecords
from tunewheel_curate.records.table import RecordTable, ends_of
from tunewheel_curate.settings import Settings
from tunewheel_curate.versions import suite, versioning
from tunewheel_embedding.static import StaticEmbedder
from tunewheel_retrieval.building import Document
from tunewheel_retrieval.building import build as build_index
from tunewheel_retrieval.sections import Section
from tunewheel_runtime.service import Position, Service
from tunewheel_runtime.store import ObjectStore

LATER = datetime(2027, 1, 1, tzinfo=UTC)


class BuilderHere(Builder):
    """Builds without the seconds that a process needs to load its libraries."""

    async def _run(self, order: BuildOrder, stop: asyncio.Event) -> BuildOutcome:
        return await asyncio.to_thread(run_build, order)


class Bench:
    """Answers to requests, and the log as its known events; ``refresh`` may find ``arriving`` ones."""

    def __init__(self, store: Path) -> None:
        self.state = LogState()
        allowed = AllowedSources.configured(hosts="", folders="", store_url=store.as_uri())
        self.builder = BuilderHere(allowed=allowed)
        self.arriving: list[Callable[[], None]] = []
        self.service = Service("curate", Settings(store_url=store.as_uri()))
        self.table = RecordTable(str(store / "records"))
        self.missing = MissingRecords(self.service.store, self.service.health.warn)
        self.answering = Answering(
            self.service,
            table_url=self.table.url,
            state=self.state,
            followed=self,  # type: ignore[arg-type]
            builder=self.builder,
            missing=self.missing,
        )
        self._offset = 0

    async def refresh(self) -> None:
        if self.arriving:
            self.arriving.pop(0)()

    def tell(self, event: Envelope) -> None:
        self.state.apply(event, Position(event.data.type, 0, self._offset))
        self._offset += 1

    def declare(self, spec) -> None:
        self.tell(new_event(ProjectDeclared(project=spec.project, spec=spec), source="/test"))

    async def build(
        self,
        spec,
        name: str,
        rows: pl.DataFrame,
        reason: BuildReason = BuildReason.COMMAND,
        index: ArtifactRef | None = None,
        release: str | None = None,
    ) -> DatasetVersioned | DatasetRejected:
        upto = ends_of(rows)
        data = DatasetRequested(
            project="shop", reason=reason, request=name, records_upto=upto, index=index, release=release
        )
        answer = await self.answering.answer(new_event(data, source="/test"), spec, stop=asyncio.Event())
        self.tell(answer)
        return answer.data

    async def manifest(self, version: DatasetVersioned) -> DatasetManifest:
        return DatasetManifest.model_validate_json(await self.service.store.get(version.manifest))


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest) -> None:
    """Build without Great Expectations, except where its pages or its findings are what is tested."""
    real = (test_a_store_that_was_lost_is_built_again_to_the_byte, test_a_version_that_differs_waits)
    if request.function not in real:
        request.getfixturevalue("one_page")


@pytest.fixture
async def bench(tmp_path: Path):
    bench = Bench(tmp_path / "store")
    yield bench
    await bench.builder.close()


@pytest.fixture
def rows(records, varied_rows) -> pl.DataFrame:
    return records(*varied_rows(45))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


async def test_a_version_tells_how_many_records_were_removed_from_the_log_unread(bench, rows, spec) -> None:
    bench.declare(spec())
    bench.table.append(rows)
    whole = await bench.build(spec(), "one", rows[:30])
    await bench.missing.compare(begins={0: 7, 1: 3}, reached={0: 0, 1: 3})
    smaller = await bench.build(spec(), "two", rows)
    assert (whole.missing_records, smaller.missing_records) == (None, 7)


async def test_a_store_that_was_lost_is_built_again_to_the_byte(bench, rows, spec, tmp_path: Path) -> None:
    small, large = spec(holdout_fraction=0.5), spec(holdout_fraction=0.1)
    bench.declare(small)
    bench.declare(large)
    bench.table.append(rows)
    first = await bench.build(small, "one", rows[:30])
    second = await bench.build(large, "two", rows)
    assert (first.previous, second.previous) == (None, first.dataset_id)
    assert second.counts.holdout >= first.counts.holdout, "what was held out once stays so"
    datasets = tmp_path / "store" / "datasets"
    before = contents(datasets)
    shutil.rmtree(datasets)
    again = await bench.build(large, "three", rows)
    assert isinstance(again, DatasetRejected)
    assert second.dataset_id in again.reasons[0]
    assert contents(datasets) == before


async def test_a_version_that_differs_waits(bench, records, varied_rows, spec) -> None:
    """A version that misses an expectation is not published until a person releases it, and a release counts
    for the same version alone."""
    wanted = spec(changes="hold", near_duplicate_threshold=1.0)
    bench.declare(wanted)
    known, horns = (
        varied_rows(60),
        [row | {"output": '{"category": "horn"}'} for row in varied_rows(150)[60:]],
    )
    rows = records(*known, *horns)
    bench.table.append(rows)
    first = await bench.build(wanted, "one", rows[:60])
    assert first.warnings == ()
    held = await bench.build(wanted, "two", rows)
    assert isinstance(held, DatasetRejected)
    assert held.held is not None
    assert f"--release {held.held}" in held.reasons[0]
    assert held.reasons[1].startswith("share of label bell: 0.2; in the version before 0.5")
    assert bench.state.history.latest("shop").dataset_id == first.dataset_id
    assert bench.state.history.held("shop") == {held.held: ends_of(rows)}
    # Released with other records it is another version, which waits again.
    fewer = await bench.build(wanted, "three", rows[:140], release=held.held)
    assert isinstance(fewer, DatasetRejected)
    assert fewer.reasons[0].startswith(f"release: {held.held} no longer follows")
    released = await bench.build(wanted, "four", rows, release=held.held)
    assert isinstance(released, DatasetVersioned)
    assert (released.dataset_id, released.previous) == (held.held, first.dataset_id)
    assert released.warnings == held.reasons[1:]
    results = (await bench.manifest(released)).expectations
    assert {one.by for one in results} == {"version_before"}
    again = await bench.build(wanted, "five", rows, release=held.held)
    assert again.reasons[0].startswith("records: nothing changed since")
    # A spec that a person has just changed only warns.
    other = spec(changes="hold", near_duplicate_threshold=1.0, min_characters=4)
    bench.declare(other)
    warned = await bench.build(other, "six", rows[:60])
    assert isinstance(warned, DatasetVersioned)
    assert any(text.startswith("share of label bell") for text in warned.warnings)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with the version before, without the pages about it."""

    def check(_, changes, __, *, on_change, dataset_id: str, folder: Path) -> tuple[ExpectationResult, ...]:
        folder.mkdir(parents=True)
        (folder / "index.html").write_text(dataset_id)
        met = {one.figure: one.low <= one.now <= one.high for one in changes}
        return tuple(
            ExpectationResult(
                expectation=name, by="version_before", met=met[name], action=on_change, observed=""
            )
            for name in met
        )

    monkeypatch.setattr(suite, "check_expectations", check)


TAKEN_BACK = {
    "a document's withdrawal": lambda: DocumentWithdrawn(project="shop", document_id="sop.md"),
    "a ticket's withdrawal": lambda: DocumentWithdrawn(project="shop", document_id="T-3", kind="ticket"),
    "a person's erasure": lambda: erasure(customer="customer-3"),
    "a source's erasure": lambda: erasure(source_id="T-3"),
}


def erasure(**subject: str) -> ErasureRequested:
    return ErasureRequested(project="shop", erasure_id="x", requested_by="privacy", **subject)


@pytest.mark.usefixtures("compared")
@pytest.mark.parametrize(
    "what",
    [
        "a person's erasure",
        *(
            pytest.param(what, marks=pytest.mark.nightly("matrices"))
            for what in TAKEN_BACK
            if "person" not in what
        ),
    ],
)
async def test_what_people_take_back_waits_for_nobody(bench, records, varied_rows, spec, what: str) -> None:
    """Not even with other records that would wait, nor in a build that was asked for by something else."""
    wanted = spec(
        changes="hold", near_duplicate_threshold=1.0, formats={"documents": {"chunks": {"enabled": True}}}
    )
    text = "Oil the bell of a bicycle once every year, before winter comes."
    sop = {
        "kind": "document",
        "source_id": "sop.md",
        "group": "sop.md",
        "output": None,
        "record_id": "rec-sop",
    }
    horns = [row | {"output": '{"category": "horn"}'} for row in varied_rows(150)[60:]]
    rows = records(*varied_rows(60), sop | {"input": text}, *horns)
    bench.declare(wanted)
    bench.table.append(rows)
    first = await bench.build(wanted, "one", rows[:61])
    waiting = await bench.build(wanted, "two", rows)
    assert waiting.held is not None
    bench.tell(new_event(erasure(customer="customer-140"), source="/test", time=LATER))
    still = await bench.build(wanted, "three", rows, BuildReason.QUIET)
    assert still.held is not None, "the newest version does not hold what was erased"
    bench.tell(new_event(TAKEN_BACK[what](), source="/test", time=LATER))
    published = await bench.build(wanted, "four", rows, BuildReason.QUIET)
    assert isinstance(published, DatasetVersioned)
    assert published.previous == first.dataset_id
    assert any(text.startswith("share of label bell") for text in published.warnings)
    # The versions that waited follow an older one: no release makes them, and their files are gone.
    stored = {path.split("/")[1] for path in await bench.service.store.list("datasets")}
    assert stored == {first.dataset_id, published.dataset_id}
    assert len({waiting.held, still.held, published.dataset_id}) == 3


class Killed(BaseException):
    """The process is gone."""


class Dying:
    """Lets a process die at its store's n-th change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        for name in ("put", "delete"):
            monkeypatch.setattr(ObjectStore, name, self._counted(getattr(ObjectStore, name)))

    def _counted(self, change: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(*args: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left = None if self.left is None else self.left - 1
            return await change(*args)

        return counted


@pytest.mark.usefixtures("compared")
async def test_a_death_between_hold_release_and_publication_loses_and_doubles_nothing(
    records, varied_rows, spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = spec(changes="hold", near_duplicate_threshold=1.0)
    horns = [row | {"output": '{"category": "horn"}'} for row in varied_rows(150)[60:]]
    rows = records(*varied_rows(60), *horns)
    event = new_event(ProjectDeclared(project="shop", spec=wanted), source="/test")

    async def told(folder: Path, deaths: tuple[int | None, ...]) -> list[Envelope]:
        """Return the log after four requests. Answering the last two, a hold and its release, dies at these
        changes; None: after the last change, before the answer is on the log."""
        log, dying, held = [event], Dying(monkeypatch), ""
        Bench(folder).table.append(rows)
        for name, count in (("one", 60), ("two", 140), ("three", 150), ("release", 150)):
            data = DatasetRequested(
                project="shop", reason=BuildReason.COMMAND, request=name, records_upto=ends_of(rows[:count]),
                release=held or None,
            )  # fmt: skip
            asked = new_event(data, source="/test")
            log.append(asked)
            for death in (*(deaths if count == 150 else ()), None):
                process = Bench(folder)  # what is left of the one before: its store and the log
                for one in log:
                    process.tell(one)
                dying.left = death
                try:
                    answer = await process.answering.answer(asked, wanted, stop=asyncio.Event())
                except Killed:
                    continue
                finally:
                    dying.left = None
            log.append(answer)
            process.tell(answer)
            assert process.state.history.has_answered(asked.id), "delivered again, it is not built again"
            held = getattr(answer.data, "held", None) or "" if name == "three" else ""
        return log

    calm, dead = tmp_path / "calm", tmp_path / "dead"
    expected = await told(calm, ())
    assert [one.data.type for one in expected[2::2]] == [
        "dataset.versioned", "dataset.rejected", "dataset.rejected", "dataset.versioned"
    ]  # fmt: skip
    answered = await told(dead, (0, 3, 7, None))
    assert [one.id for one in answered] == [one.id for one in expected], "whoever heard it twice knows it"
    assert contents(dead / "datasets") == contents(calm / "datasets")
    published = {one.data.dataset_id for one in answered[2::6]}
    assert {path.split("/")[0] for path in contents(dead / "datasets")} == published
    assert answered[-1].data.dataset_id == answered[-3].data.held


async def test_rows_that_retire_are_no_reason_to_train_the_same_model_again(
    bench, records, varied_rows, spec
) -> None:
    wanted, rows = spec(holdout_fraction=0.3), records(*varied_rows(60))
    bench.declare(wanted)
    bench.table.append(rows)
    first = await bench.build(wanted, "one", rows[:50])
    store, manifest = bench.service.store, await bench.manifest(first)
    held = pl.read_parquet(BytesIO(await store.get(manifest.holdout)))["record_ids"].list.first().to_list()
    assert len(held) >= 10
    look = Look(project="shop", scorecard_id="card-1", rows=tuple(held), looks=1)
    await store.put(look_path("shop", "card-1"), look.model_dump_json().encode())
    again = await bench.build(wanted, "two", rows[:50])
    assert again.reasons == (f"records: nothing changed since {first.dataset_id}; publish new records first",)
    # new records make a version, in which that row rests and new ones are held out
    newer = await bench.build(wanted, "three", rows)
    left = pl.read_parquet(BytesIO(await store.get((await bench.manifest(newer)).holdout)))
    kept = set(held) & set(left["record_ids"].list.first())
    assert len(kept) == len(held) - len(held) // 10
    assert left.height > len(kept)


async def test_a_held_out_row_that_was_erased_leaves_the_next_version_too(bench, rows, spec) -> None:
    """Its training rows are the same, and the version before has no rows any more (``erase_versions``)."""
    wanted = spec(holdout_fraction=0.3, erase_versions=True)
    bench.declare(wanted)
    bench.table.append(rows)
    first = await bench.build(wanted, "one", rows)
    store, manifest = bench.service.store, await bench.manifest(first)
    held = pl.read_parquet(BytesIO(await store.get(manifest.holdout)))["record_ids"].list.first().sort()[0]
    bench.tell(new_event(erasure(customer=f"customer-{int(held[4:])}"), source="/test", time=LATER))
    await store.delete([manifest.train.path, manifest.holdout.path, manifest.lineage.path])
    second = await bench.build(wanted, "two", rows)
    assert isinstance(second, DatasetVersioned)
    assert (await bench.manifest(second)).train.sha256 == manifest.train.sha256
    assert second.counts.holdout == first.counts.holdout - 1


@pytest.mark.parametrize(
    "reason", [BuildReason.COMMAND, pytest.param(BuildReason.DRIFT, marks=pytest.mark.nightly("matrices"))]
)
async def test_the_same_records_are_tried_again_after_a_bad_end_when_somebody_asks(
    bench, rows, spec, reason
) -> None:
    bench.declare(spec())
    bench.table.append(rows)
    first = await bench.build(spec(), "one", rows)
    diverged = TrainFailed(
        project="shop", run_id="run-1", dataset_id=first.dataset_id, field="(run)", reason="it diverged"
    )
    bench.tell(new_event(diverged, source="/test"))
    unasked = await bench.build(spec(), "two", rows, BuildReason.QUIET)
    assert unasked.reasons == (
        f"records: nothing changed since {first.dataset_id}, which failed in training (it diverged); publish "
        "new records or change the spec, or try the same again with `tunewheel dataset build --project shop`",
    )
    again = await bench.build(spec(), "three", rows, reason)
    assert isinstance(again, DatasetVersioned)
    assert (again.previous, again.counts) == (first.dataset_id, first.counts)
    assert again.dataset_id != first.dataset_id
    endless = await bench.build(spec(), "four", rows)
    assert endless.reasons == (
        f"records: nothing changed since {again.dataset_id}; publish new records first",
    ), "it has not ended yet"


async def test_a_version_that_cannot_be_built_again_is_named(bench, rows, spec, tmp_path: Path) -> None:
    bench.table.append(rows)
    first = await bench.build(spec(), "one", rows[:30])
    shutil.rmtree(tmp_path / "store" / "datasets")
    refused = await bench.build(spec(), "two", rows)
    assert isinstance(refused, DatasetRejected)
    assert refused.reasons[0].startswith(f"previous: {first.dataset_id} is missing from the store")
    assert "its spec is no longer on the log" in refused.reasons[0]


async def test_a_lost_version_that_libraries_write_otherwise_now_is_left_unwritten(
    bench, rows, spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.declare(spec())
    bench.table.append(rows)
    first = await bench.build(spec(), "one", rows[:30])
    datasets = tmp_path / "store" / "datasets"
    before = contents(datasets)
    shutil.rmtree(datasets)
    monkeypatch.setattr(versioning, "version", lambda _: "after the upgrade")
    for request in ("two", "three"):
        refused = await bench.build(spec(), request, rows)
        assert isinstance(refused, DatasetRejected)
        assert refused.reasons[0].startswith(f"previous: {first.dataset_id} ")
        assert "libraries" in refused.reasons[0]
    assert not datasets.exists(), "other content under its name would be taken for the version"
    for name, data in before.items():
        (datasets / name).parent.mkdir(parents=True, exist_ok=True)
        (datasets / name).write_bytes(data)
    assert isinstance(await bench.build(spec(), "four", rows), DatasetVersioned), "it was brought back"


@pytest.mark.parametrize("name", ["manifest.json", "holdout_memory.parquet"])
async def test_a_damaged_version_before_stops_its_own_project_alone(
    bench, rows, spec, tmp_path: Path, name: str
) -> None:
    bench.declare(spec())
    bench.table.append(rows)
    first = await bench.build(spec(), "one", rows[:30])
    damaged = tmp_path / "store" / "datasets" / first.dataset_id / name
    damaged.write_bytes(damaged.read_bytes()[:-1])
    refused = await bench.build(spec(), "two", rows)
    assert isinstance(refused, DatasetRejected)
    assert refused.reasons[0].startswith(f"previous: {first.dataset_id} ")
    assert f"{name} hashes to" in refused.reasons[0]
    if name == "manifest.json":
        assert await bench.answering.uses(first, RecordKind.TICKET, "T-3"), "nobody can tell"


async def test_a_version_of_a_newer_release_stops_its_own_project_alone(bench, rows, spec) -> None:
    bench.declare(spec())
    bench.table.append(rows)
    first = await bench.build(spec(), "one", rows[:30])
    newer = await bench.service.store.put("datasets/ds-newer/manifest.json", b'{"format": 2}')
    written = first.model_copy(update={"manifest": newer})
    bench.state.history = History()
    bench.tell(new_event(written, source="/test"))
    refused = await bench.build(spec(), "two", rows)
    assert isinstance(refused, DatasetRejected)
    assert refused.reasons[0].startswith(f"previous: {first.dataset_id} ")
    assert await bench.answering.uses(written, RecordKind.TICKET, "T-3"), "nobody can tell"


async def test_what_lies_under_the_name_of_a_new_version_is_named(bench, rows, spec, tmp_path: Path) -> None:
    """An attempt that was killed half-way, by libraries that wrote other bytes."""
    bench.table.append(rows)
    first = await bench.build(spec(), "one", rows)
    folder = tmp_path / "store" / "datasets" / first.dataset_id
    (folder / "manifest.json").unlink()
    (folder / "train.parquet").write_bytes(b"other bytes")
    bench.state.history = History()
    refused = await bench.build(spec(), "two", rows)
    assert isinstance(refused, DatasetRejected)
    assert f"remove datasets/{first.dataset_id}" in refused.reasons[0]


async def test_what_is_erased_while_a_build_runs_is_not_published(bench, rows, spec) -> None:
    bench.table.append(rows)
    data = ErasureRequested(project="shop", erasure_id="x", customer="customer-7", requested_by="privacy")
    bench.arriving = [lambda: bench.tell(new_event(data, source="/test", time=LATER))]
    store, section = (
        bench.service.store,
        Section("rec-7", "customer-7", "", (), (DocumentSection(text="Hi."),)),
    )
    await note_sources(store, "shop", {"a" * 64: section})
    await store.put(lesson_path("a" * 64), b'{"pairs":[]}')
    version = await bench.build(spec(), "one", rows)
    assert not await store.exists(lesson_path("a" * 64)), "what was asked about it meanwhile goes too"
    outcomes = await OutcomeCache(store).read("shop")
    assert outcomes.height >= version.counts.examples
    assert "rec-0007" not in outcomes["record_id"]
    assert version.counts.records == rows.height - 1
    manifest = await bench.manifest(version)
    lineage = await bench.service.store.get(manifest.lineage)
    assert "rec-0007" not in pl.read_parquet(lineage)["record_id"].to_list()


async def test_what_is_withdrawn_while_a_build_runs_is_not_published(bench, records, rows, spec) -> None:
    text = "Oil the bell of a bicycle once every year, before winter comes."
    document = {"kind": "document", "source_id": "sop.md", "output": None, "record_id": "rec-sop"}
    sop = records(document | {"input": text})
    passages = spec(formats={"documents": {"chunks": {"enabled": True}}})
    both = pl.concat([rows, sop.with_columns(pl.lit(15, dtype=pl.Int64).alias("offset"))])
    bench.table.append(both)
    data = DocumentWithdrawn(project="shop", document_id="sop.md")
    before = await bench.build(passages, "one", both)
    assert await bench.answering.uses(before, RecordKind.DOCUMENT, "sop.md")
    bench.arriving = [lambda: bench.tell(new_event(data, source="/test", time=LATER))]
    version = await bench.build(passages, "two", both)
    assert version.funnel[0].reasons == {"withdrawn": 1}
    assert version.withdrawals_upto == {"0": 2}
    assert not await bench.answering.uses(version, RecordKind.DOCUMENT, "sop.md")
    assert await bench.answering.uses(version, RecordKind.TICKET, "T-3")


async def test_what_comes_back_makes_a_version_of_its_own(bench, records, rows, spec, tmp_path: Path) -> None:
    """Every service has done what the first one's name asks for; the later one's memory must be continued."""
    passages = spec(formats={"documents": {"chunks": {"enabled": True}}})
    sop = {"kind": "document", "source_id": "sop.md", "output": None, "record_id": "rec-sop"}
    said = records(sop | {"input": "Oil the bell of a bicycle once every year, before winter comes."})
    once = pl.concat([rows, said.with_columns(pl.lit(15, dtype=pl.Int64).alias("offset"))])
    again = said.with_columns(
        pl.lit(16, dtype=pl.Int64).alias("offset"),
        pl.lit(LATER + timedelta(days=1), dtype=pl.Datetime("us", "UTC")).alias("published_at"),
    )
    bench.declare(passages)
    bench.table.append(once)
    first = await bench.build(passages, "one", once)
    withdrawn = DocumentWithdrawn(project="shop", document_id="sop.md")
    bench.tell(new_event(withdrawn, source="/test", time=LATER))
    without = await bench.build(passages, "two", once)
    bench.table.append(again)
    third = await bench.build(passages, "three", pl.concat([once, again]))
    assert third.previous == without.dataset_id
    assert third.dataset_id not in (first.dataset_id, without.dataset_id)
    assert (await bench.manifest(third)).rows_sha256 == (await bench.manifest(first)).rows_sha256
    datasets = tmp_path / "store" / "datasets"
    before = contents(datasets)
    shutil.rmtree(datasets / third.dataset_id)
    unchanged = await bench.build(passages, "four", pl.concat([once, again]))
    assert unchanged.reasons == (
        f"records: nothing changed since {third.dataset_id}; publish new records first",
    )
    assert contents(datasets) == before


async def put_index(store: ObjectStore, spec, text: str) -> ArtifactRef:
    """Put an index of one document, ``sop.md``, whose record is ``rec-sop``."""
    section = Section("rec-sop", "sop.md", "Bells", ("Care",), (DocumentSection(text=text),))
    files = build_index(
        [Document("sop.md", "rec-sop", "Bells", [section])], StaticEmbedder(), spec.retrieval,
        project="shop", config_sha256="0" * 64,
    )  # fmt: skip
    folder = f"indexes/shop/{files.index_id}"
    refs = {name: await store.put(f"{folder}/{name}", data) for name, data in files.by_name().items()}
    return await store.put(f"{folder}/manifest.json", files.manifest(refs).model_dump_json().encode())


async def test_a_version_with_passages_is_the_same_wherever_it_is_built(
    bench, records, rows, spec, tmp_path: Path
) -> None:
    """From another store by another process, and again where the store lost it."""
    text = "Oil the bell of a bicycle once every year, before winter comes."
    document = {"kind": "document", "source_id": "sop.md", "output": None, "record_id": "rec-sop"}
    sop = records(document | {"input": text}).with_columns(pl.lit(15, dtype=pl.Int64).alias("offset"))
    asking = rows.with_columns(pl.col("input") + pl.lit(" bell"))
    both = pl.concat([asking, sop])
    retrieval = RetrievalSpec.model_validate({"training": {"gold": 1.0}})
    trained = spec().model_copy(update={"retrieval": retrieval})
    other = Bench(tmp_path / "other")
    made = []
    for one in (bench, other):
        one.declare(trained)
        one.table.append(both)
        index = await put_index(one.service.store, trained, text)
        made.append(await one.build(trained, "one", both, index=index))
    await other.builder.close()
    first, datasets = made[0], tmp_path / "store" / "datasets"
    assert first == made[1]
    assert first.index == index
    before = contents(datasets)
    assert before == contents(tmp_path / "other" / "datasets")
    manifest = await bench.manifest(first)
    assert (manifest.index, manifest.index_id, manifest.passages.gold) == (
        index, first.index_id, first.counts.train,
    )  # fmt: skip
    assert await bench.answering.uses(first, RecordKind.DOCUMENT, "sop.md")
    shutil.rmtree(datasets)
    unchanged = await bench.build(trained, "two", both, index=index)
    assert isinstance(unchanged, DatasetRejected)
    assert contents(datasets) == before
    await bench.service.store.delete([index.path])
    with pytest.raises(BuildFailed, match=r"the index at .* cannot be read"):
        await bench.build(trained, "three", both, index=index)
    shutil.rmtree(datasets)
    lost = await bench.build(trained, "four", both, index=index)
    assert isinstance(lost, DatasetRejected)
    assert all(word in lost.reasons[0] for word in (index.path, "is deleted", f"datasets/{first.dataset_id}"))


async def test_a_request_may_name_the_withdrawals_it_knows(bench, rows, spec) -> None:
    bench.table.append(rows)
    withdrawn = DocumentWithdrawn(project="shop", document_id="T-3")
    bench.tell(new_event(withdrawn, source="/test", time=LATER))
    data = DatasetRequested(
        project="shop",
        reason=BuildReason.COMMAND,
        request="r",
        records_upto=ends_of(rows),
        withdrawals_upto={},
    )
    answer = await bench.answering.answer(new_event(data, source="/test"), spec(), stop=asyncio.Event())
    assert answer.data.withdrawals_upto == {}


async def test_a_spec_that_asks_for_a_replay_that_is_not_there_is_refused(bench, rows, spec) -> None:
    bench.table.append(rows)
    refused = await bench.build(spec(replay={"source": "/no/such.jsonl"}), "one", rows)
    assert isinstance(refused, DatasetRejected)
    assert refused.reasons[0].startswith("dataset.replay.source: /no/such.jsonl is in no folder")


async def test_general_data_that_the_store_lost_refuses_its_own_project_alone(
    bench, rows, spec, tmp_path: Path
) -> None:
    """A build was killed after it had read the source, and before it was done."""
    source = tmp_path / "store" / "general" / "a.jsonl"
    source.parent.mkdir()
    source.write_text('{"prompt": "Which day?", "response": "Monday."}\n')
    bench.table.append(rows)
    asked = spec(replay={"source": str(source)})
    assert isinstance(await bench.build(asked, "one", rows), DatasetVersioned)
    for kept in (tmp_path / "store" / "replay").iterdir():
        kept.unlink()
    bench.state.history = History()
    refused = await bench.build(asked, "two", rows)
    assert isinstance(refused, DatasetRejected)
    assert refused.reasons[0].startswith("store: replay/")

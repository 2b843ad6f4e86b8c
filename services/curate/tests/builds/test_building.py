"""Builds in a real worker process, on a real record table."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import polars as pl
import psutil
import pytest
from pydantic import SecretStr, ValidationError
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.look import Look, look_path
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_curate.builds.building import Builder, BuildFailed, BuildStopped, WorkerFailed
from tunewheel_curate.builds.one_build import run_build
from tunewheel_curate.builds.order import BuildOrder
from tunewheel_curate.holdout.memory import HoldoutMemory
from tunewheel_curate.records.table import RecordTable, ends_of
from tunewheel_curate.settings import Settings

UNLOADED = (
    sys.executable, "-c",
    "from tunewheel_curate.builds import worker; worker.load = lambda: None; worker.main()",
)  # fmt: skip
"""The worker, except that it loads nothing ahead of the build that needs it, which takes ten seconds."""


@pytest.fixture
async def builder():
    builder = Builder(worker=UNLOADED)
    yield builder
    await builder.close()


@pytest.fixture
def order(tmp_path: Path, records, spec, varied_rows) -> BuildOrder:
    rows = records(*varied_rows(30))
    RecordTable(str(tmp_path / "records")).append(rows)
    return BuildOrder(table_url=str(tmp_path / "records"), spec=spec(), records_upto=ends_of(rows), folder="")


@pytest.fixture
def waiting(builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds wait for a regression set that never comes: who interrupts one is not too late."""
    pipe = tmp_path / "regression.jsonl"
    os.mkfifo(pipe)
    monkeypatch.setattr(builder, "_regression_set", str(pipe))


async def test_builds_of_one_worker_leave_their_files_until_they_are_taken(order: BuildOrder) -> None:
    builder = Builder()
    await builder.prepare()
    (worker,) = builder._idle
    for _ in range(2):
        async with builder.build(order, stop=asyncio.Event()) as (outcome, folder):
            assert outcome.manifest is not None
            train = (folder / "train.parquet").read_bytes()
            assert content_sha256(train) == outcome.manifest.train.sha256
            assert not (folder / "data_docs").exists(), "nothing is expected of a first version"
        assert not folder.exists()
    assert builder._idle == [worker]
    await builder.close()


@pytest.mark.usefixtures("waiting")
async def test_a_build_that_dies_is_a_loud_failure(builder: Builder, order: BuildOrder) -> None:
    await builder.prepare()
    building = asyncio.create_task(_built(builder, order, asyncio.Event()))
    (await _fork_of(psutil.Process(builder._idle[0].pid))).kill()
    with pytest.raises(BuildFailed, match=r"killed \(signal 9\), most likely for want of memory"):
        await building
    assert builder._metrics.value("builds.failed") == 1


@pytest.mark.usefixtures("waiting")
async def test_a_build_stops_when_told_and_its_processes_end(builder: Builder, order: BuildOrder) -> None:
    await builder.prepare()
    worker, stop = psutil.Process(builder._idle[0].pid), asyncio.Event()
    building = asyncio.create_task(_built(builder, order, stop))
    fork = await _fork_of(worker)
    stop.set()
    with pytest.raises(BuildStopped):
        await building
    assert builder._metrics.value("builds.failed") == 0
    assert not worker.is_running()
    while _runs(fork):
        await asyncio.sleep(0.01)


@pytest.mark.usefixtures("waiting")
async def test_a_build_whose_caller_is_cancelled_leaves_no_process(
    builder: Builder, order: BuildOrder
) -> None:
    await builder.prepare()
    worker = psutil.Process(builder._idle[0].pid)
    building = asyncio.create_task(_built(builder, order, asyncio.Event()))
    await _fork_of(worker)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert not worker.is_running()


@pytest.mark.usefixtures("waiting")
async def test_a_build_that_takes_too_long_is_ended(
    builder: Builder, order: BuildOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await builder.prepare()
    worker = psutil.Process(builder._idle[0].pid)
    monkeypatch.setattr(builder, "_seconds", 0.1)
    with pytest.raises(BuildFailed, match=r"did not end within 0\.1 seconds"):
        await _built(builder, order, asyncio.Event())
    assert not worker.is_running()


async def test_a_build_that_raises_says_so_without_the_words_of_records(
    builder: Builder, order: BuildOrder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "jane@example.com.jsonl"
    broken.write_text("{}")
    monkeypatch.setattr(builder, "_regression_set", str(broken))
    with pytest.raises(BuildFailed, match=r"exit code 1; curate's log says why") as failed:
        await _built(builder, order, asyncio.Event())
    assert "jane" not in str(failed.value)


async def test_a_source_that_is_away_is_the_builds_failure(
    builder: Builder, order: BuildOrder, spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = spec(replay={"source": "http://127.0.0.1:9/a.jsonl"})
    away = order.model_copy(update={"spec": asked})
    monkeypatch.setattr(builder, "_allowed", AllowedSources(hosts="127.0.0.1"))
    with pytest.raises(BuildFailed, match=r"http://127\.0\.0\.1:9/a\.jsonl cannot be read"):
        await _built(builder, away, asyncio.Event())


async def test_a_worker_that_dies_is_a_loud_failure_too(builder: Builder, order: BuildOrder) -> None:
    await builder.prepare()
    builder._idle[0].kill()
    with pytest.raises(WorkerFailed, match="signal 9"):
        await _built(builder, order, asyncio.Event())


@pytest.mark.usefixtures("waiting")
async def test_builds_at_once_have_workers_of_their_own_and_all_end(
    builder: Builder, order: BuildOrder
) -> None:
    await builder.prepare()
    known = set(psutil.Process().children())
    first, stop = psutil.Process(builder._idle[0].pid), asyncio.Event()
    building = asyncio.create_task(_built(builder, order, stop))
    await _fork_of(first)
    await builder.prepare()
    assert not builder._idle, "a worker runs"
    second = asyncio.create_task(_built(builder, order, stop))
    (worker,) = await _besides(known)
    await _fork_of(worker)
    stop.set()
    for one in (building, second):
        with pytest.raises(BuildStopped):
            await one
    assert not first.is_running()
    assert not worker.is_running()


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("prepares_first", [True, False])
async def test_a_build_that_comes_while_a_worker_starts_takes_this_worker(
    builder: Builder, order: BuildOrder, prepares_first: bool
) -> None:
    stop, preparing, known = asyncio.Event(), None, set(psutil.Process().children())
    if prepares_first:
        preparing = asyncio.create_task(builder.prepare())
    building = asyncio.create_task(_built(builder, order, stop))
    await (preparing or builder.prepare())
    while not any(worker.children() for worker in await _besides(known)):
        await asyncio.sleep(0.01)
    assert len(await _besides(known)) == 1
    stop.set()
    with pytest.raises(BuildStopped):
        await building


async def _besides(known: set[psutil.Process]) -> list[psutil.Process]:
    """Return the child processes of the test besides ``known``, once there is one."""
    while not (found := set(psutil.Process().children()) - known):
        await asyncio.sleep(0.01)
    return [*found]


async def _built(builder: Builder, order: BuildOrder, stop: asyncio.Event) -> None:
    async with builder.build(order, stop=stop) as (outcome, _):
        assert outcome.manifest is not None


async def _fork_of(worker: psutil.Process) -> psutil.Process:
    while not (forks := worker.children()):
        await asyncio.sleep(0.01)
    return forks[0]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_records_that_are_not_there_yet_are_waited_for(order: BuildOrder) -> None:
    outcome = run_build(order.model_copy(update={"records_upto": {"0": 1_000}}))
    assert outcome.manifest is None
    assert "asks for 1000" in (outcome.behind or "")


def test_what_a_build_keeps_for_the_next_changes_only_the_time(order: BuildOrder, tmp_path: Path) -> None:
    """Built with nothing kept, with the index and the outcomes whole, with both broken: the same bytes."""
    folders = [tmp_path / name for name in ("first", "known", "broken")]
    manifests = []
    for folder in folders:
        outcome = run_build(order.model_copy(update={"folder": str(folder)}))
        assert outcome.manifest is not None
        manifests.append(outcome.manifest)
        kept = sorted(path for path in (tmp_path / "caches").rglob("*") if path.is_file())
        assert [path.suffix for path in kept] == [".npz", ".parquet"]
        for path in kept if folder.name == "known" else ():
            path.write_bytes(path.read_bytes()[:100])
    assert manifests[0] == manifests[1] == manifests[2]
    for name in ("train.parquet", "holdout.parquet", "lineage.parquet", "card.md"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1


@pytest.mark.usefixtures("one_page")
def test_a_build_retires_the_most_used_rows_of_the_version_before_and_every_attempt_the_same(
    order: BuildOrder, records, spec, varied_rows, tmp_path: Path
) -> None:
    rows = records(*varied_rows(60))
    RecordTable(str(tmp_path / "more")).append(rows)
    known = {
        "table_url": str(tmp_path / "more"),
        "records_upto": ends_of(rows),
        "spec": spec(holdout_fraction=0.2),
    }

    def built(folder: Path, **changes: object) -> tuple[set[str], set[str]]:
        outcome = run_build(order.model_copy(update=known | {"folder": str(folder)} | changes))
        assert outcome.manifest is not None
        split = (pl.read_parquet(folder / f"{name}.parquet") for name in ("train", "holdout"))
        train, holdout = ({ids[0] for ids in frame["record_ids"]} for frame in split)
        return train, holdout

    before = tmp_path / "datasets" / "ds-before"
    train, held = built(before)
    assert len(held) == 12
    used = sorted(held)
    for number in range(10):
        look = Look(project="shop", scorecard_id=f"card-{number}", rows=tuple(used[number // 5 :]), looks=1)
        path = tmp_path / look_path("shop", look.scorecard_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(look.model_dump_json())
    memory = {"previous": "ds-before", "memory": str(before / "holdout_memory.parquet")}
    (tmp_path / "looks/shop/card-0.json").unlink()  # 9 looks: 9 / 10 of 12 rows
    after, left = built(tmp_path / "one", **memory)
    retired = held - left
    assert len(retired) == 10
    assert used[0] not in retired, "the least used stays"
    assert not retired & after
    assert train - left == after - held, "what trained goes on, but for what is held out in their place"
    assert built(tmp_path / "two", **memory) == (after, left)
    told = [Look.model_validate_json(one.read_text()) for one in (tmp_path / "looks/shop").glob("build-*")]
    assert [(set(one.rows), one.of, one.counted) for one in told] == [(retired, 1, 9)]


@pytest.mark.parametrize("kind", ["texts", "a task of lm-eval"])
def test_a_benchmark_that_is_away_refuses_the_version(order: BuildOrder, spec, kind: str) -> None:
    asked = spec(benchmarks=[{"name": "acceptance", "path": "benchmarks/none.jsonl"}])
    field = "dataset.benchmarks.0.path: benchmarks/none.jsonl"
    if kind != "texts":
        task = {"task": "quiz", "path": "benchmarks/quiz", "sha256": "0" * 64}
        asked = ProjectSpec.model_validate(
            spec().model_dump(mode="json") | {"evaluation": {"lm_eval": [task]}}
        )
        field = "evaluation.lm_eval.0.path: benchmarks/quiz"
    outcome = run_build(order.model_copy(update={"spec": asked}))
    assert outcome.manifest is None
    (reason,) = outcome.rejections
    assert reason.startswith(f"{field} is not in the object store")
    assert len(outcome.rows_sha256) == 64


def test_a_secret_reaches_the_worker_and_no_file(order: BuildOrder, records, spec, tmp_path: Path) -> None:
    rows = [{"input": f"w{n} x{n} y{n} z{n}: write to a{n}@example.com"} for n in range(12)]
    horns = [row | {"output": '{"category": "horn"}'} for row in rows[::2]]
    frame = records(*rows[1::2], *horns)
    RecordTable(str(tmp_path / "people")).append(frame)
    told = order.model_copy(
        update={
            "table_url": str(tmp_path / "people"),
            "records_upto": ends_of(frame),
            "spec": spec(pii={"action": "pseudonymise"}),
        }
    )

    def built(secret: str) -> dict[str, bytes]:
        folder = tmp_path / f"built-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        asked = told.model_copy(update={"pseudonym_secret": SecretStr(secret), "folder": str(folder)})
        assert secret == "" or secret not in repr(asked)
        outcome = run_build(BuildOrder.model_validate_json(asked.model_dump_json()))
        assert outcome.rejections == ()
        return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}

    first, again, without = built("correct horse battery"), built("correct horse battery"), built("")
    assert first == again
    assert first["train.parquet"] != without["train.parquet"]
    assert b"keyed by the secret" in first["card.md"]
    assert b"keyed by the secret" not in without["card.md"]
    assert not [name for name, data in first.items() if b"correct horse" in data]


NAMED = {"group": "jane@acme.com/42", "source_id": "Jane Doe, 7 Mill Lane", "validated_by": "Dr. Eve Ex"}
SECRET = SecretStr("correct horse battery")


def test_no_file_of_a_version_names_a_customer_a_source_or_an_expert(
    order: BuildOrder, records, varied_rows, spec, tmp_path: Path
) -> None:
    bell, horn = ('{"category": "bell"}', '{"category": "horn"}')
    thumb = {"input": "does it ring at noon", "rating": "down", "rated_output": bell, "output": None}
    clash = {"input": "is it a bell or a horn that I hear", "output": bell}
    rows = [row | {"rejected_output": '{"category": "gong"}'} for row in varied_rows(30)]
    rows += [clash, clash | {"output": horn}, thumb | {"kind": "feedback", "trust": "unverified"}]
    named = [{name: f"{told} {n}" for name, told in NAMED.items()} for n in range(len(rows))]
    frame = records(*(row | own for row, own in zip(rows, named, strict=True)))
    RecordTable(str(tmp_path / "people")).append(frame)
    asked = {
        "table_url": str(tmp_path / "people"), "records_upto": ends_of(frame), "folder": str(tmp_path / "v"),
        "pseudonym_secret": SECRET, "spec": spec(ratings=True),
    }  # fmt: skip
    (tmp_path / "v").mkdir()
    outcome = run_build(order.model_copy(update=asked))
    assert outcome.manifest is not None
    files = [file for file in (tmp_path / "v").rglob("*") if file.is_file()]
    tables = {file.name: pl.read_parquet(file) for file in files if file.suffix == ".parquet"}
    assert tables.keys() == {
        "train.parquet", "holdout.parquet", "preferences.parquet", "negatives.parquet", "lineage.parquet",
        "review.parquet", "holdout_memory.parquet",
    }  # fmt: skip
    for file in files:
        text = str(tables[file.name].to_dicts()) if file.suffix == ".parquet" else file.read_text("latin-1")
        assert not [told for told in NAMED.values() if told in text], file.name
    names = Pseudonyms("shop", SECRET.get_secret_value())
    lineage = tables["lineage.parquet"].row(by_predicate=pl.col("record_id") == "rec-0003", named=True)
    assert lineage["source_id"] == names.of("source", f"{NAMED['source_id']} 3")
    assert lineage["validated_by"] == names.of("expert", f"{NAMED['validated_by']} 3")
    groups = pl.concat([tables["train.parquet"]["group"], tables["holdout.parquet"]["group"]])
    assert set(groups) <= {names.of("group", f"{NAMED['group']} {n}") for n in range(len(rows))}
    assert groups.n_unique() == outcome.manifest.counts.examples
    assert pl.read_parquet(tmp_path / "v/holdout_memory.parquet")["key"].unique().to_list() == [names.check]


def test_another_secret_refuses_the_next_version_and_says_why(order: BuildOrder, tmp_path: Path) -> None:
    HoldoutMemory({"0" * 32}, Pseudonyms("shop", "another secret")).to_frame().write_parquet(tmp_path / "m")
    asked = {"memory": str(tmp_path / "m"), "pseudonym_secret": SECRET, "folder": str(tmp_path)}
    outcome = run_build(order.model_copy(update=asked))
    assert outcome.manifest is None
    assert outcome.rejections[0].startswith("TUNEWHEEL_PSEUDONYM_SECRET: is not the one that the version")


def test_a_short_secret_is_refused_and_none_is_shown() -> None:
    with pytest.raises(ValidationError, match="pseudonym_secret"):
        Settings(pseudonym_secret=SecretStr("short"))
    assert "correct horse" not in repr(Settings(pseudonym_secret=SecretStr("correct horse battery")))

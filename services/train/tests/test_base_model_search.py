"""The base model of a run: found, or on a hub that does not answer, or too large to convert here."""

from __future__ import annotations

import asyncio
import errno
import itertools
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.events.training import TrainCompleted, TrainFailed
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_testing.waiting import until
from tunewheel_train.progress import Failed
from tunewheel_train.runs import bases
from tunewheel_train.worker import of_shortage

from .conftest import IMPATIENT

NO_MEMORY = "cannot be converted in this machine's memory; add memory, or choose a smaller model"


async def test_a_base_model_that_does_not_exist_fails_with_its_field(bench, tmp_path: Path):
    made = await bench(base_model=str(tmp_path / "nowhere"))
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "base_model"
    assert "give the path of a directory" in event.reason


async def with_a_dead_hub(bench, tmp_path: Path, monkeypatch):
    """A bench whose base is on a hub where nobody listens; from the second process on, in the hub's cache."""
    filled = tmp_path / "hub" / "models--nobody--tiny"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    made = (await bench(base_model="nobody/tiny")).whose_worker_first_runs(
        f"import os, pathlib; seen = pathlib.Path({str(tmp_path / 'seen')!r}); "
        f"os.environ['HF_HUB_CACHE'] = {str(filled.parent)!r} if seen.exists() else {str(tmp_path)!r}; "
        f"seen.touch(); {IMPATIENT}"
    )
    return made, filled


async def test_a_hub_that_is_down_for_a_while_delays_the_run(bench, tiny_base, tmp_path: Path, monkeypatch):
    made, cached = await with_a_dead_hub(bench, tmp_path, monkeypatch)
    revision = "a" * 40
    shutil.copytree(tiny_base.path, cached / "snapshots" / revision)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(revision)
    made.settings = made.settings.model_copy(update={"retry_first_delay_seconds": 0.01})
    event = await made.train()
    assert isinstance(event, TrainCompleted)
    assert event.adapter.base.revision == revision


async def test_a_version_is_trained_on_the_commit_that_was_found_first(
    bench, tiny_base, tmp_path: Path, monkeypatch
):
    """A hub's main branch moves; a version that is trained again must not land on another base."""
    cached = tmp_path / "hub" / "models--nobody--tiny"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(cached.parent))
    (cached / "refs").mkdir(parents=True)
    revisions = []
    made = (await bench(base_model="nobody/tiny")).whose_worker_first_runs(IMPATIENT)
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(tiny_base.path, cached / "snapshots" / commit)
        (cached / "refs" / "main").write_text(commit)
        event = await made.train()
        assert isinstance(event, TrainCompleted)
        revisions.append((event.run_id, event.adapter.base.revision))
    assert revisions[0] == revisions[1]


@pytest.mark.parametrize("pinned", ["a" * 40, "b" * 40])
async def test_of_workers_that_search_at_once_all_take_the_commit_that_was_pinned_first(
    pinned: str, bench, tiny_base, tmp_path: Path, monkeypatch
):
    """During the search of this worker, another worker pins the commit that the other worker found."""
    cached = tmp_path / "hub" / "models--nobody--tiny"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(cached.parent))
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("a" * 40)
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(tiny_base.path, cached / "snapshots" / commit)
    pin = BaseModelRef(name="nobody/tiny", revision=pinned).model_dump_json()
    path = tmp_path / "store" / "bases" / "ds-tiny.json"
    made = (await bench(base_model="nobody/tiny")).whose_worker_first_runs(
        f"{IMPATIENT}; import pathlib; path = pathlib.Path({str(path)!r}); "
        f"path.parent.mkdir(exist_ok=True); path.exists() or path.write_text({pin!r})"
    )
    event = await made.train()
    assert isinstance(event, TrainCompleted)
    assert event.adapter.base.revision == pinned
    assert path.read_text() == pin


async def test_a_hub_that_stays_down_fails_the_run_and_is_named(bench, tmp_path: Path, monkeypatch):
    made, _ = await with_a_dead_hub(bench, tmp_path, monkeypatch)
    made.settings = made.settings.model_copy(update={"retry_first_delay_seconds": 0.01, "hub_attempts": 2})
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "base_model"
    assert "gave up after 2 attempts" in event.reason
    assert "hub does not answer" in event.reason


async def test_a_search_on_a_dead_hub_ends_with_its_lease(bench, tmp_path: Path, monkeypatch):
    made, _ = await with_a_dead_hub(bench, tmp_path, monkeypatch)
    made.settings = made.settings.model_copy(
        update={"retry_first_delay_seconds": 3_600.0, "retry_max_delay_seconds": 3_600.0}
    )
    task = asyncio.create_task(made.train())
    await until((tmp_path / "seen").exists)
    made.lease.lost.set()
    with pytest.raises(made.lease.Lost):
        await task


async def test_a_disk_that_is_full_before_the_search_for_the_base_fails_the_run(bench, monkeypatch):
    made = await bench()
    monkeypatch.setattr("tunewheel_train.runs.bases.uuid4", lambda: SimpleNamespace(hex="search"))
    locating = made.settings.runs_dir.parent / "locating" / "search"
    locating.mkdir(parents=True)
    (locating / "locate.json").symlink_to("/dev/full")
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "(disk)"


async def test_a_hub_that_is_down_once_training_began_is_asked_again(bench):
    word = Failed(field="base_model", reason="the hub does not answer", unreachable=True).model_dump_json()
    made = await bench()
    made.whose_worker_first_runs(f"'train' in sys.argv and sys.exit(print({word!r}))")
    with pytest.raises(TransientError, match="does not answer"):
        await made.train()


@pytest.mark.parametrize(
    ("error", "field", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "(disk)", "has no space left"),
        (MemoryError(), "base_model", NO_MEMORY),
    ],
    ids=str,
)
async def test_a_machine_too_small_to_convert_the_base_is_told_as_such(bench, error, field, words):
    made = await bench()
    # What the process says when converting raised it.
    word = of_shortage(error).model_dump_json()
    made.worker = (sys.executable, "-c", f"print({word!r}); raise SystemExit(65)")
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == field
    assert words in event.reason


async def test_a_search_that_keeps_dying_fails_the_run_and_not_the_service(bench):
    made = (await bench()).whose_worker_first_runs("'train' in sys.argv or sys.exit('a file nobody foresaw')")
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert event.field == "base_model"
    assert event.reason.startswith("could not be loaded: 3 processes that looked for it died, the last: ")
    assert "a file nobody foresaw" in event.reason


async def test_a_search_that_the_kernel_killed_for_want_of_memory_is_told_as_such(bench, monkeypatch):
    monkeypatch.setattr(bases, "oom_kills", itertools.count().__next__)
    made = (await bench()).whose_worker_first_runs("import os; os.kill(os.getpid(), 9)")
    event = await made.train()
    assert isinstance(event, TrainFailed)
    assert (event.field, event.reason) == ("base_model", NO_MEMORY)


async def test_runs_that_begin_together_each_find_their_own_base(bench, tmp_path: Path):
    good = await bench()
    missing = await bench(base_model=str(tmp_path / "nowhere"), dataset_id="ds-other")
    trainings = good.trainings
    events = await asyncio.gather(
        *(trainings.train(made.event, lease=made.lease, tell=made.tell) for made in (missing, good))
    )
    assert [type(event) for event in events] == [TrainFailed, TrainCompleted]
    assert events[0].field == "base_model"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (("flood", "flood", "flood", "north"), ["flood", "north", "flood", "flood"]),
        (("flood",) * 3 + ("south", "north"), ["flood", "south", "north", "flood", "flood"]),
        (("north", "flood", "flood", "north"), ["north", "flood", "north", "flood"]),
    ],
    ids=["a flood before another", "a flood before two others", "another before a flood"],
)
async def test_a_project_with_many_versions_holds_back_no_search_of_another(bench, asked, found):
    made, order = await bench(), []
    searches = bases.Bases(made.store, made.settings, made.worker)

    async def search(project: str) -> None:
        await searches.search(project, made.manifest.spec.base_model, None, made.lease)
        order.append(project)

    await asyncio.gather(*(search(project) for project in asked))
    assert order == found


async def test_a_search_that_waits_ends_with_its_lease_and_leaves_its_place(bench, tmp_path: Path):
    begun, goes_on = tmp_path / "begun", tmp_path / "goes-on"
    made = (await bench()).whose_worker_first_runs(
        f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); "
        f"[time.sleep(.01) for _ in iter(pathlib.Path({str(goes_on)!r}).exists, True)]"
    )
    lost = await bench(dataset_id="ds-lost")
    searches = bases.Bases(made.store, made.settings, made.worker)
    name = made.manifest.spec.base_model
    first = asyncio.create_task(searches.search("flood", name, None, made.lease))
    await until(begun.exists)
    waiting = asyncio.create_task(searches.search("north", name, None, lost.lease))
    await asyncio.sleep(0)
    lost.lease.lost.set()
    with pytest.raises(lost.lease.Lost):
        await waiting
    last = asyncio.create_task(searches.search("south", name, None, made.lease))
    goes_on.touch()
    assert await first == await last

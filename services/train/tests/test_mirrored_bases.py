"""A base that one machine downloaded from the hub, on machines that cannot reach the hub."""

from __future__ import annotations

import asyncio
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tunewheel_basemodel.locate import BaseModel
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.run import BaseModelRef, mirror_of
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.hub import COMMIT, gated_hub
from tunewheel_train.errors import RunFailed
from tunewheel_train.runs import bases

from .conftest import IMPATIENT

NAME = "owner/gated"
NOBODY = "http://127.0.0.1:9"
MIRROR = f"{mirror_of(NAME)}/{COMMIT}"


@pytest.fixture
def hub(tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub with one model."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with gated_hub(tiny_base.path, "hf_right") as url:
        yield url


@pytest.fixture
def make(bench, tmp_path: Path, hub: str):
    """Make a bench of a machine of its own, with an empty cache; ``endpoint`` is the hub that it asks."""

    async def machine(name: str, endpoint: str = hub):
        asked = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / name / "hub"), "HF_TOKEN": "hf_right"}
        made = (await bench(base_model=NAME, dataset_id=f"ds-{name}")).whose_worker_first_runs(
            f"import os; os.environ.update({asked}); {IMPATIENT}"
        )
        changes = {"cache_dir": tmp_path / name, "hub_attempts": 1, "retry_first_delay_seconds": 0.01}
        made.settings = made.settings.model_copy(update=changes)
        return made

    return machine


async def test_a_machine_without_the_hub_trains_on_what_another_downloaded(make, tmp_path: Path):
    first = await make("first")
    events = [await first.train(), await (await make("second", NOBODY)).train()]
    assert [type(event) for event in events] == [TrainCompleted, TrainCompleted]
    assert {event.adapter.base.revision for event in events} == {COMMIT}
    assert events[0].adapter.base_facts == events[1].adapter.base_facts
    assert not (tmp_path / "second" / "hub").exists()
    weights = [tmp_path / name / MIRROR / "model.safetensors" for name in ("first", "second")]
    assert weights[0].resolve().is_relative_to(tmp_path / "first" / "hub"), "not held twice"
    assert weights[0].read_bytes() == weights[1].read_bytes()

    before = await first.store.written("bases")
    assert await first.train() == events[0]
    assert await first.store.written("bases") == before, "a second delivery copies nothing"


async def base_of(made) -> str:
    base, _ = await made.trainings.base_of(made.manifest, made.lease)
    return base.revision


async def test_a_machine_that_lost_its_cache_finds_the_pinned_commit(make, tmp_path: Path):
    assert await base_of(await make("first")) == COMMIT
    shutil.rmtree(tmp_path / "first")
    again = await make("first", NOBODY)
    await again.store.delete([f"{mirror_of(NAME)}/main.json"])  # the version itself names its commit
    assert await base_of(again) == COMMIT


async def test_a_hub_cache_that_was_carried_to_one_machine_serves_all(make, tmp_path: Path):
    downloading, carried = await make("first"), await make("carried", NOBODY)
    downloading.settings = downloading.settings.model_copy(update={"mirror_bases": False})
    assert await base_of(downloading) == COMMIT
    shutil.copytree(tmp_path / "first" / "hub", tmp_path / "carried" / "hub", symlinks=True)
    assert await base_of(carried) == COMMIT
    assert await base_of(await make("other", NOBODY)) == COMMIT


async def test_a_damaged_mirror_is_refused_and_mended_by_a_machine_that_reaches_the_hub(make, tmp_path: Path):
    await base_of(await make("first"))
    (tmp_path / "store" / MIRROR / "model.safetensors").write_bytes(b"spoilt")
    with pytest.raises(RunFailed, match="hub does not answer"):
        await base_of(await make("second", NOBODY))
    assert not (tmp_path / "second" / MIRROR).exists()
    assert await base_of(await make("third")) == COMMIT
    assert await base_of(await make("second", NOBODY)) == COMMIT


async def test_a_mirror_that_cannot_be_written_stops_no_run(make, tmp_path: Path):
    made = await make("first")
    (tmp_path / "store" / MIRROR).parent.mkdir(parents=True)
    (tmp_path / "store" / MIRROR).write_text("a file in the place of a folder")
    assert await base_of(made) == COMMIT


async def test_a_store_that_is_away_fails_no_run_and_takes_no_commit_that_others_do_not(make, tmp_path: Path):
    made = await make("first")
    (tmp_path / "store" / "bases").mkdir()
    (blocking := tmp_path / "store" / mirror_of(NAME)).write_text("a file in the place of a folder")
    with pytest.raises(TransientError, match=f"which commit {NAME} means is not known"):
        await base_of(made)
    pin = BaseModelRef(name=NAME, revision=COMMIT).model_dump_json().encode()
    await made.store.put("bases/ds-second.json", pin)
    assert await base_of(await make("second")) == COMMIT, "a version that has its commit needs no mirror"
    blocking.unlink()
    assert await base_of(made) == COMMIT


async def test_a_disk_that_cannot_hold_a_mirrored_base_fails_the_run_at_once(make, tmp_path: Path):
    await base_of(await make("first"))
    made, before = await make("second", NOBODY), resource.getrlimit(resource.RLIMIT_FSIZE)
    changes = {"hub_attempts": 2, "retry_first_delay_seconds": 3_600.0, "retry_max_delay_seconds": 3_600.0}
    made.settings = made.settings.model_copy(update=changes)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        with pytest.raises(RunFailed, match="free some, or set TUNEWHEEL_WORK_DIR") as caught:
            await base_of(made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.field == "(disk)"
    (tmp_path / "third").write_text("a file in the place of a folder")
    with pytest.raises(TransientError, match="set TUNEWHEEL_CACHE_DIR to another disk"):
        await base_of(await make("third", NOBODY))


async def test_a_copy_that_takes_long_holds_back_no_search_and_is_made_once(
    make, tiny_base: BaseModel, tmp_path: Path
):
    begun, goes_on, copied = asyncio.Event(), asyncio.Event(), []

    class Slow(ObjectStore):
        async def put_file(self, path: str, file: Path, *, sha256: str) -> ArtifactRef:
            begun.set()
            await goes_on.wait()
            copied.append(path)
            return await super().put_file(path, file, sha256=sha256)

    made = await make("first")
    searches = bases.Bases(Slow(made.store.url), made.settings, made.worker)
    first = asyncio.create_task(searches.search("flood", NAME, None, made.lease))
    await begun.wait()
    second = asyncio.create_task(searches.search("flood", NAME, None, made.lease))
    async with asyncio.timeout(60):
        found, _ = await searches.search("north", str(tiny_base.path), None, made.lease)
    assert found.revision == tiny_base.revision
    assert not first.done()
    goes_on.set()
    assert (await first)[0] == (await second)[0] == BaseModelRef(name=NAME, revision=COMMIT)
    assert len(copied) == len(set(copied)) > 1


async def test_an_operator_may_keep_bases_out_of_the_store(make, tmp_path: Path):
    made = await make("first")
    made.settings = made.settings.model_copy(update={"mirror_bases": False})
    assert await base_of(made) == COMMIT
    assert await made.store.list("bases") == ["bases/ds-first.json"]
    assert not (tmp_path / "first" / "bases").exists()

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunewheel_contracts.identity import sha256_file
from tunewheel_runtime.store import PART_BYTES, ObjectStore
from tunewheel_train.runs import remote_checkpoints
from tunewheel_train.trainers import checkpoints

PREFIX = "runs/run-1/checkpoints"


def write_checkpoint(
    run_dir: Path, step: int, content: str = "", best: int | None = None, method: str = "lora"
) -> Path:
    directory = run_dir / checkpoints.name_of(step)
    directory.mkdir(parents=True)
    for name in (checkpoints.WEIGHTS, checkpoints.OPTIMIZER, checkpoints.TRAINER_STATE):
        (directory / name).write_text(f"{name} {step} {content}")
    (directory / checkpoints.STATE).write_text(json.dumps({"method": method, "of": content}))
    files = {file.name: sha256_file(file) for file in directory.iterdir()}
    (directory / checkpoints.MANIFEST).write_text(
        json.dumps({"step": step, "best_step": best, "files": files})
    )
    return directory


async def upload(store: ObjectStore, checkpoint: Path, keep: int = 2) -> None:
    await remote_checkpoints.upload(store, PREFIX, checkpoint, keep=keep)


async def download(store: ObjectStore, run_dir: Path, method: str = "lora") -> int:
    return await remote_checkpoints.download(store, PREFIX, run_dir, method)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/store")


async def test_a_checkpoint_goes_to_another_machine_whole(store, tmp_path: Path):
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    await upload(store, write_checkpoint(here, 20))
    assert await download(store, there) == 20
    assert checkpoints.latest(there) == there / "checkpoint-000020"
    assert [p.name for p in there.iterdir()] == ["checkpoint-000020"]


@pytest.mark.parametrize("keep", [1, 2, 3])
async def test_as_many_are_kept_as_the_recipe_says(store, tmp_path: Path, keep: int):
    for step in (20, 40, 60, 80):
        await upload(store, write_checkpoint(tmp_path / "here", step), keep=keep)
    kept = sorted({path.split("/")[3].partition(".")[0] for path in await store.list(PREFIX)})
    assert kept == [f"checkpoint-{step:06}" for step in (20, 40, 60, 80)][-keep:]


async def test_one_of_many_parts_goes_there_and_back_without_being_held_whole(store, tmp_path: Path):
    class Streaming(ObjectStore):
        async def read(self, path: str) -> bytes | None:
            assert path.endswith((checkpoints.MANIFEST, checkpoints.STATE))
            return await super().read(path)

    there = tmp_path / "there"
    there.mkdir()
    large = "x" * (2 * PART_BYTES + 1)
    await upload(store, write_checkpoint(tmp_path / "here", 20, large))
    assert await download(Streaming(store.url), there) == 20
    weights = there / "checkpoint-000020" / checkpoints.WEIGHTS
    assert weights.read_text().endswith(large)


async def test_a_corrupted_one_is_passed_over_for_the_one_before(store, tmp_path: Path):
    for step in (20, 40):
        await upload(store, write_checkpoint(tmp_path / "here", step))
    (weights,) = [p for p in await store.list(PREFIX) if "000040" in p and p.endswith(checkpoints.WEIGHTS)]
    (store.local_root / weights).write_bytes(b"other weights")
    (tmp_path / "there").mkdir()
    assert await download(store, tmp_path / "there") == 20
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["checkpoint-000020"]


async def test_the_best_by_validation_is_kept_and_comes_along(store, tmp_path: Path):
    for step in (20, 40, 60, 80):
        await upload(store, write_checkpoint(tmp_path / "here", step, best=20))
    kept = {path.split("/")[3].partition(".")[0] for path in await store.list(PREFIX)}
    assert kept == {"checkpoint-000020", "checkpoint-000060", "checkpoint-000080"}
    there = tmp_path / "there"
    there.mkdir()
    assert await download(store, there) == 80
    assert {path.name for path in there.iterdir()} == {"checkpoint-000020", "checkpoint-000080"}


async def test_the_best_comes_along_though_its_own_upload_was_skipped(store, tmp_path: Path):
    here, there = tmp_path / "here", tmp_path / "there"
    write_checkpoint(here, 20)  # a newer one came before the upload began
    for step in (40, 60, 80):
        await upload(store, write_checkpoint(here, step, best=20))
    there.mkdir()
    assert await download(store, there) == 80
    assert {path.name for path in there.iterdir()} == {"checkpoint-000020", "checkpoint-000080"}


async def test_what_changed_on_the_disk_is_not_taken_by_another_machine(store, tmp_path: Path):
    await upload(store, write_checkpoint(tmp_path / "here", 20))
    changed = write_checkpoint(tmp_path / "here", 40)
    (changed / checkpoints.WEIGHTS).write_bytes(b"other")
    await upload(store, changed)
    (tmp_path / "there").mkdir()
    assert await download(store, tmp_path / "there") == 20


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("damaged", [30, 37])
async def test_a_damaged_one_takes_no_place_of_those_written_after_it(store, tmp_path: Path, damaged, keep):
    """The steps of checkpoints depend on time: after a resume they are others."""
    for content in range(4):  # the order of names of the same step is that of their hashes
        changed = write_checkpoint(tmp_path / f"killed-{content}", damaged, str(content))
        (changed / checkpoints.WEIGHTS).write_bytes(b"torn")
        await upload(store, changed, keep=9)
    await upload(store, write_checkpoint(tmp_path / "here", 30), keep=keep)
    (tmp_path / "there").mkdir()
    assert await download(store, tmp_path / "there") == 30


async def test_a_damaged_one_is_passed_over_for_the_one_before(store, tmp_path: Path):
    for step in (20, 40):
        await upload(store, write_checkpoint(tmp_path / "here", step))
    (weights,) = [p for p in await store.list(PREFIX) if "000040" in p and p.endswith(checkpoints.WEIGHTS)]
    await store.delete([weights])
    there = tmp_path / "there"
    there.mkdir()
    assert await download(store, there) == 20


async def test_one_that_is_still_going_up_does_not_exist(store, tmp_path: Path):
    await upload(store, write_checkpoint(tmp_path / "here", 20))
    (manifest,) = [p for p in await store.list(PREFIX) if p.endswith(checkpoints.MANIFEST)]
    await store.delete([manifest])
    (tmp_path / "there").mkdir()
    assert await download(store, tmp_path / "there") == 0


async def test_what_is_newer_here_stays(store, tmp_path: Path):
    await upload(store, write_checkpoint(tmp_path / "other", 20))
    here = tmp_path / "here"
    write_checkpoint(here, 40)
    assert await download(store, here) == 40
    assert [p.name for p in here.iterdir()] == ["checkpoint-000040"]


@pytest.mark.parametrize(("lora", "qlora"), [(20, 10), (20, 40), (20, 20), (10, 20)])
async def test_a_quantised_run_that_moves_goes_on_from_a_checkpoint_of_its_method(
    store, tmp_path: Path, lora: int, qlora: int
):
    """It began anew when it was quantised, so the other method may have come further."""
    here, before, there = (tmp_path / name for name in ("here", "before", "there"))
    await upload(store, write_checkpoint(before, lora))
    await upload(store, write_checkpoint(here, qlora, method="qlora"))
    assert await download(store, there, "qlora") == qlora
    assert checkpoints.step_of(checkpoints.latest(there, "qlora")) == qlora
    assert await download(store, there / "again", "lora") == lora
    assert await download(store, there, "lora") == lora  # the machine may hold one of the other method
    assert await download(store, there / "whole", "full") == 0


async def test_a_damaged_state_is_passed_over_like_other_files(store, tmp_path: Path):
    await upload(store, write_checkpoint(tmp_path / "here", 20))
    await upload(store, write_checkpoint(tmp_path / "here", 40))
    (state,) = [path for path in await store.list(f"{PREFIX}") if "000040" in path and "/state" in path]
    (tmp_path / "store" / state).write_text("{")
    assert await download(store, tmp_path / "there") == 20


async def test_two_workers_checkpoints_of_one_step_do_not_collide(store, tmp_path: Path):
    await upload(store, write_checkpoint(tmp_path / "one", 20, "a"))
    await upload(store, write_checkpoint(tmp_path / "two", 20, "b"))
    (tmp_path / "there").mkdir()
    assert await download(store, tmp_path / "there") == 20


async def test_a_completed_runs_checkpoints_are_removed(store, tmp_path: Path):
    await upload(store, write_checkpoint(tmp_path / "here", 20))
    await remote_checkpoints.remove(store, PREFIX)
    assert await store.list(PREFIX) == []

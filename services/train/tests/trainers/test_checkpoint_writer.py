"""When checkpoints are written, that training goes on meanwhile, and what an error of the writing does."""

from __future__ import annotations

import errno
import itertools
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tunewheel_train.errors import RunFailed
from tunewheel_train.progress import Checkpointed, Message
from tunewheel_train.trainers import checkpoints
from tunewheel_train.trainers.checkpoint_writer import CheckpointWriter

IS_DUE = CheckpointWriter.is_due
"""As it is: the other tests of this package replace it."""


class Writer(CheckpointWriter):
    is_due = IS_DUE


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def snapshot(step: int, **changes: Any) -> checkpoints.Snapshot:
    tensors = {
        name: {"a": torch.full((3,), float(step))} for name in (checkpoints.WEIGHTS, checkpoints.OPTIMIZER)
    }
    texts = {checkpoints.STATE: "{}", checkpoints.TRAINER_STATE: "{}"}
    made: dict[str, Any] = {
        "step": step, "best_step": None, "keep": 2, "tensors": tensors, "texts": texts, "copied": True,
    }  # fmt: skip
    return checkpoints.Snapshot(**made | changes)


@pytest.fixture(autouse=True)
def taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "take", lambda trainer, unchanged: snapshot(trainer.step))


def at(step: int) -> Any:
    return SimpleNamespace(step=step)


def written_of(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, cost: float, steps: int, every: int
) -> dict[int, float]:
    """Return after which of ``steps`` of two seconds a checkpoint is written, and the time then."""
    clock, written = Clock(), dict[int, float]()

    def write(snapshot: checkpoints.Snapshot, run_dir: Path, unchanged: Any) -> Path:
        clock.now += cost
        return run_dir

    monkeypatch.setattr(checkpoints, "write", write)
    with Writer(folder, lambda message: None, clock) as writer:
        for step in range(1, steps + 1):
            clock.now += 2.0
            if writer.is_due(step, every):
                written[step] = clock.now - 1000.0
                writer.save(at(step))
                writer.wait()
    return written


@pytest.mark.parametrize("cost", [0.01, 0.5, 6.0])
def test_checkpoints_take_a_small_share_of_the_time(monkeypatch, tmp_path: Path, cost: float):
    written = written_of(monkeypatch, tmp_path, cost=cost, steps=900, every=3)
    last = max(written.values())
    assert min(written) == 3
    assert all(step % 3 == 0 for step in written)
    assert cost * (len(written) - 1) <= 0.03 * last
    assert len(written) >= min(0.8 * 0.03 * last / cost, 290)


@pytest.mark.parametrize(("cost", "every"), [(60.0, 3), (0.0, 10**6), (1000.0, 7)])
def test_a_checkpoint_comes_every_ten_minutes_whatever_it_costs(monkeypatch, tmp_path, cost, every):
    written = written_of(monkeypatch, tmp_path, cost=cost, steps=1500, every=every)
    times = [0.0, *written.values()]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert len(written) > 2
    assert max(gaps) <= max(600.0, cost) + 2.0


def test_training_goes_on_while_one_checkpoint_is_written(monkeypatch, tmp_path: Path):
    may_write, original, told = threading.Event(), checkpoints.write, list[Message]()

    def write(*args: Any) -> Path:
        assert may_write.wait(120)
        return original(*args)

    monkeypatch.setattr(checkpoints, "write", write)
    with Writer(tmp_path, told.append) as writer:
        writer.save(at(2))
        assert not writer.is_due(4, 2)
        assert (told, checkpoints.candidates(tmp_path)) == ([], [])
        may_write.set()
        writer.save(at(6))
        assert [message.step for message in told if isinstance(message, Checkpointed)][:1] == [2]
    assert [message.path for message in told if isinstance(message, Checkpointed)] == [
        str(tmp_path / checkpoints.name_of(step)) for step in (2, 6)
    ]
    assert checkpoints.latest(tmp_path) == tmp_path / checkpoints.name_of(6)


def test_what_is_not_copied_is_written_before_training_goes_on(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(checkpoints, "take", lambda trainer, _: snapshot(trainer.step, copied=False))
    with Writer(tmp_path, lambda message: None) as writer:
        writer.save(at(2))
        assert checkpoints.latest(tmp_path) == tmp_path / checkpoints.name_of(2)


@pytest.mark.parametrize("place", ["the next step", "the next checkpoint", "the end"])
@pytest.mark.parametrize(
    ("error", "kind"),
    [(PermissionError("read-only"), RunFailed), (OSError(errno.ENOSPC, "full"), OSError)],
)
def test_a_checkpoint_that_cannot_be_written_fails_the_run(monkeypatch, tmp_path, error, kind, place):
    def write(*_: Any) -> Path:
        raise error

    monkeypatch.setattr(checkpoints, "write", write)

    def run() -> None:
        with Writer(tmp_path, lambda message: None) as writer:
            writer.save(at(2))
            if place == "the next step":
                assert writer._writing is not None
                assert writer._writing.exception(120) is error
                writer.is_due(3, 2)
            if place == "the next checkpoint":
                writer.save(at(4))

    with pytest.raises(kind) as caught:
        run()
    if kind is RunFailed:
        assert (caught.value.field, "read-only" in caught.value.reason) == ("(run)", True)


def test_an_error_of_the_training_is_not_replaced_by_one_of_the_writing(monkeypatch, tmp_path: Path):
    def write(*_: Any) -> Path:
        raise PermissionError

    monkeypatch.setattr(checkpoints, "write", write)

    def run() -> None:
        with Writer(tmp_path, lambda message: None) as writer:
            writer.save(at(2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()


@pytest.mark.parametrize("links", [True, False])
def test_the_reference_is_written_and_hashed_once(monkeypatch, tmp_path: Path, links: bool):
    hashed, original = list[str](), checkpoints.sha256_file

    def hashing(file: Path) -> str:
        hashed.append(file.name)
        return original(file)

    def without(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(checkpoints.os, "link", without)
    monkeypatch.setattr(checkpoints, "sha256_file", hashing)
    unchanged: checkpoints.Unchanged = {}
    first = snapshot(2, keep=1)
    first.tensors[checkpoints.REFERENCE] = {"a": torch.ones(3)}
    content = (checkpoints.write(first, tmp_path, unchanged) / checkpoints.REFERENCE).read_bytes()
    for step in (4, 6):  # the checkpoint before is deleted
        checkpoints.write(snapshot(step, keep=1), tmp_path, unchanged)
    assert hashed.count(checkpoints.REFERENCE) == 1
    assert [path.name for path in tmp_path.iterdir()] == [checkpoints.name_of(6)]
    newest = checkpoints.latest(tmp_path)
    assert newest is not None
    assert (newest / checkpoints.REFERENCE).read_bytes() == content
    (newest / checkpoints.REFERENCE).write_bytes(b"other")
    assert checkpoints.latest(tmp_path) is None


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("why", ["damaged", "of another method"])
def test_what_a_resume_passed_over_takes_no_place_of_a_new_checkpoint(tmp_path: Path, why: str, keep: int):
    """The steps of checkpoints depend on time: after a resume they are others."""

    def of(method: str, step: int) -> checkpoints.Snapshot:
        texts = {checkpoints.STATE: f'{{"method": "{method}"}}', checkpoints.TRAINER_STATE: "{}"}
        return snapshot(step, keep=keep, texts=texts)

    for step in (37, 57):
        passed = checkpoints.write(of("lora", step), tmp_path, {})
        if why == "damaged":
            (passed / checkpoints.WEIGHTS).write_bytes(b"torn")
    for step in (20, 40):
        written = checkpoints.write(of("qlora", step), tmp_path, {})
        assert checkpoints.latest(tmp_path, "qlora") == written


def test_all_of_a_checkpoint_is_on_the_disk_before_it_is_moved_into_place(monkeypatch, tmp_path: Path):
    done, sync, rename = list[str](), checkpoints.os.fsync, Path.rename

    def syncing(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        sync(descriptor)

    def renaming(path: Path, target: Path) -> Path:
        done.append("moved")
        return rename(path, target)

    monkeypatch.setattr(checkpoints.os, "fsync", syncing)
    monkeypatch.setattr(Path, "rename", renaming)
    written = checkpoints.write(snapshot(2), tmp_path, {})
    assert {*done[:-2]} == {f".{written.name}", *(file.name for file in written.iterdir())}
    assert done[-2:] == ["moved", tmp_path.name]

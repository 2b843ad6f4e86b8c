"""The training process as the service meets it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tunewheel_train.progress import Alive, Completed, Failed, Located, Progressed, Searching, Stopped, parse
from tunewheel_train.runs.process import WORKER
from tunewheel_train.trainers import checkpoints
from tunewheel_train.worker import (
    EXIT_FAILED,
    EXIT_STOPPED,
    EXIT_UNREACHABLE,
    Heartbeat,
    SearchSigns,
    moved_bytes,
)


@pytest.fixture
def job_file(case, tmp_path: Path):
    """Write the job of a case."""

    def write(**changes) -> Path:
        path = tmp_path / "job.json"
        path.write_text(case(**changes).job.model_dump_json())
        return path

    return write


LIGHT_WORKER = (sys.executable, str(Path(__file__).with_name("light_worker.py")))


def start(job: Path, action: str = "train", *, worker: Sequence[str] = LIGHT_WORKER) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*worker, action, str(job)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def read_until(process: subprocess.Popen[str], kind: type):
    assert process.stdout is not None
    for line in process.stdout:
        message = parse(line)
        assert message is not None, f"stdout carries something else: {line!r}"
        if isinstance(message, kind):
            return message
    raise AssertionError(f"the process ended with {process.wait()} before a {kind.__name__}")


def test_a_job_is_completed(job_file):
    process = start(job_file())
    assert read_until(process, Completed).steps == 6
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    "worker", [pytest.param(WORKER, marks=pytest.mark.nightly("kills")), LIGHT_WORKER], ids=["real", "light"]
)
def test_sigterm_checkpoints_after_the_present_step_and_exits_75(job_file, case, worker):
    process = start(job_file(epochs=100), worker=worker)
    read_until(process, Progressed)
    process.send_signal(signal.SIGTERM)
    stopped = read_until(process, Stopped)
    assert process.wait(60) == EXIT_STOPPED
    newest = checkpoints.latest(case().job.work_dir)
    assert newest is not None
    assert checkpoints.step_of(newest) == stopped.step > 0


def test_a_second_worker_waits_for_the_first_to_leave_the_directory(job_file):
    first = start(job_file(epochs=100))
    at = read_until(first, Progressed)
    second = start(job_file(epochs=100))
    first.send_signal(signal.SIGTERM)
    stopped = read_until(first, Stopped)
    assert stopped.step >= at.step
    progressed = read_until(second, Progressed)
    assert progressed.step == stopped.step + 1
    second.kill()
    second.wait()


def test_a_missing_base_model_is_a_failure_with_its_field(job_file, tmp_path: Path):
    process = start(job_file(base_model=str(tmp_path / "nowhere")))
    failed = read_until(process, Failed)
    assert failed.field == "base_model"
    assert process.wait(60) == EXIT_FAILED


def test_whichever_process_runs_out_of_memory_says_so(job_file, monkeypatch):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")  # of two that train together
    monkeypatch.setenv("LIGHT_FAULT", "oom")
    process = start(job_file())
    assert process.stdout is not None
    (failed,) = map(parse, process.stdout)
    assert isinstance(failed, Failed)
    assert failed.out_of_memory
    assert process.wait(60) == EXIT_FAILED


def test_a_hub_that_does_not_answer_says_nothing_about_the_model(job_file, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    process = start(job_file(base_model="nobody/tiny"), "locate")
    failed = read_until(process, Failed)
    assert failed.unreachable
    assert process.wait(60) == EXIT_UNREACHABLE


def test_locate_names_the_revision(job_file):
    process = start(job_file(), "locate")
    located = read_until(process, Located)
    assert located.revision.startswith("sha256:")
    assert located.facts is not None
    assert located.facts.context_length == 512
    assert located.facts.license is None
    assert process.wait(60) == 0


def test_the_worker_dies_with_its_parent(job_file, tmp_path: Path):
    script = (
        "import subprocess, sys, time\n"
        f"job = {str(job_file(epochs=100))!r}\n"
        f"command = [*{LIGHT_WORKER!r}, 'train', job]\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(worker)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_parse_ignores_what_is_no_message():
    assert parse("Loading weights: 100%") is None
    assert parse(json.dumps({"kind": "unknown"})) is None


def test_it_beats_while_the_body_waits_and_no_longer():
    beats = threading.Semaphore(0)
    with Heartbeat(beats.release, 0.001):
        for _ in range(3):
            assert beats.acquire(timeout=60)
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_it_ends_quietly_when_nobody_listens():
    called = threading.Event()

    def beat() -> None:
        called.set()
        raise BrokenPipeError

    with Heartbeat(beat, 0.001):
        assert called.wait(60)


def test_a_search_comes_further_while_much_is_read_or_written():
    moved = itertools.chain([0, 900_000, 1_900_000, 1_900_100, 5_000_000]).__next__
    signs = SearchSigns(moved)
    assert [signs() for _ in range(4)] == [
        Alive(), Searching(moved_bytes=1_900_000), Alive(), Searching(moved_bytes=5_000_000),
    ]  # fmt: skip


def test_what_is_written_counts_on_whichever_file_system(tmp_path: Path):
    before = moved_bytes()
    (tmp_path / "downloaded").write_bytes(bytes(3 << 20))
    assert moved_bytes() - before >= 3 << 20

"""Children are started apart, stopped in order, and do not outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from tunewheel_local import leash
from tunewheel_testing.waiting import wait_for


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_output_goes_to_the_log_and_a_bad_command_raises(tmp_path: Path) -> None:
    process = leash.spawn([sys.executable, "-c", "print('hello')"], log=tmp_path / "logs" / "x.log")
    assert process.wait(60) == 0
    assert (tmp_path / "logs" / "x.log").read_text() == "hello\n"
    with pytest.raises(FileNotFoundError):
        leash.spawn([tmp_path / "nothing"], log=tmp_path / "y.log")


def test_a_child_lives_on_when_the_thread_that_asked_for_it_ends(tmp_path: Path) -> None:
    log, question = tmp_path / "x.log", tmp_path / "question"
    answering = (
        "import pathlib, sys, time\n"
        "while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)\n"
        "print('alive', flush=True); time.sleep(600)"
    )
    started: list[subprocess.Popen[bytes]] = []

    def ask() -> None:
        started.append(leash.spawn([sys.executable, "-c", answering, question], log=log))

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join()
    thread = Path(f"/proc/self/task/{asking.native_id}")
    wait_for(lambda: not thread.exists())  # a signal would be on its way by now, and come before the answer
    question.touch()
    try:
        wait_for(lambda: log.read_text() == "alive\n")
    finally:
        assert leash.stop(started[0], patience=60)
    assert started[0].returncode == -signal.SIGTERM


def test_one_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    stubborn = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    log = tmp_path / "x.log"
    process = leash.spawn([sys.executable, "-c", stubborn], log=log)
    wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
    assert not leash.stop(process, patience=0.1)
    wait_for(lambda: gone(int(log.read_text())))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the parent-death signal is Linux's")
@pytest.mark.parametrize("leashed", [True, False])
def test_a_leashed_child_dies_with_its_parent(tmp_path: Path, leashed: bool) -> None:
    program = (
        "import sys; from pathlib import Path; from tunewheel_local import leash;"
        "sleeper = [sys.executable, '-c', 'import time; time.sleep(600)'];"
        f"child = leash.spawn(sleeper, log=Path(sys.argv[1]), leashed={leashed});"
        "print(child.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "x.log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    if leashed:
        wait_for(lambda: gone(pid))
    else:
        assert not gone(pid)
        os.kill(pid, signal.SIGKILL)

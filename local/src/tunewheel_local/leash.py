"""Child processes that do not outlive their parent, however it dies."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue

PR_SET_PDEATHSIG = 1
"""prctl(2): sets the signal that a process gets when its parent dies."""


def spawn(
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    leashed: bool = True,
    keep_open: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start ``argv`` with its output appended to ``log``. ``leashed``: it gets SIGTERM when this process
    dies.

    The child gets its own process group, so that Ctrl-C in a terminal reaches only this process, which stops
    its children in order. ``keep_open``: file descriptors that the child keeps open, such as locks. Only
    Linux has a parent-death signal. Elsewhere a leashed child ends only if this process stops normally.

    Raises:
        OSError: ``argv[0]`` cannot be run.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started: SimpleQueue[subprocess.Popen[bytes] | BaseException] = SimpleQueue()

    def keep() -> None:
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [str(part) for part in argv],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=None if env is None else dict(env),
                    start_new_session=True,
                    pass_fds=keep_open,
                    preexec_fn=_die_with_parent(os.getpid()) if leashed else None,
                )
        except BaseException as error:
            started.put(error)
            return
        started.put(process)
        process.wait()

    # The kernel sends the signal when the *thread* that forked ends. So the fork happens in a thread that
    # lives as long as the child.
    threading.Thread(target=keep, name=f"leash {argv[0]}", daemon=True).start()
    outcome = started.get()
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def stop(process: subprocess.Popen[bytes], *, patience: float) -> bool:
    """Send SIGTERM, wait up to ``patience`` seconds, then kill its group. Return whether it ended by
    itself."""
    if process.poll() is not None:
        return True
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        process.wait()
        return False
    return True


def kill_group(pid: int) -> None:
    """Kill (SIGKILL) the process group of the child ``pid`` that ``spawn`` started."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent died before prctl took effect
            os._exit(1)

    return in_child

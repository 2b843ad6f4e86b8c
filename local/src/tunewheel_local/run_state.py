"""``var/run.json``: the state of the running wheel, for the other commands, which can also stop it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from tunewheel_contracts.errors import TunewheelError

from tunewheel_local.places import Var


class AlreadyRunning(TunewheelError):
    """A supervisor already runs on this ``var`` folder."""


@dataclass(slots=True)
class RunState:
    """One running wheel. Secrets are not written; commands must be given passwords again."""

    supervisor_pid: int
    supervisor_started: float
    """The creation time of that process, which tells it from a later process with the same pid."""
    phase: str
    """``starting``, ``running``, ``failed`` or ``stopping``."""
    bootstrap_servers: str
    security_protocol: str = "PLAINTEXT"
    topic_prefix: str = ""
    store_url: str = ""
    identity: str = ""
    """``open``, or ``required`` with the ``keys_file`` of its services."""
    keys_file: str = ""
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name: pid, port, url, state, restarts, log, note."""
    error: str = ""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the state in ``path``; None if the file is missing or unreadable."""
        try:
            told = json.loads(path.read_text("utf-8"))
            # another release may have written other fields too
            return cls(**{name: told[name] for name in cls.__dataclass_fields__ if name in told})
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_text(json.dumps(asdict(self), indent=2) + "\n", "utf-8")
        part.replace(path)

    @property
    def alive(self) -> bool:
        """Whether the supervisor that wrote this still runs."""
        return started(self.supervisor_pid) == self.supervisor_started

    def url_of(self, service: str) -> str | None:
        return self.services.get(service, {}).get("url")


def started(pid: int) -> float | None:
    """Return the creation time of the process in seconds since the epoch; None if there is no such
    process."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def living(path: Path) -> RunState | None:
    """Return the state of the running wheel; None if none runs."""
    state = RunState.read(path)
    return state if state is not None and state.alive else None


def require_none(path: Path) -> None:
    """Raise ``AlreadyRunning`` if a wheel runs."""
    state = living(path)
    if state is not None:
        raise AlreadyRunning(
            f"{path.parent}: a wheel already runs here (pid {state.supervisor_pid}); stop it with "
            "`tunewheel down`, look at it with `tunewheel status`, or choose another folder with --var"
        )


PATIENCE_SECONDS = 300.0
"""How long to wait. It is long because services stop one after the other, and write checkpoints."""


class StillRunning(TunewheelError):
    """The supervisor does not end."""


def stop_wheel(var: Var, *, patience: float = PATIENCE_SECONDS) -> bool:
    """Ask the supervisor on ``var`` to stop, and wait until it has ended. False: none runs.

    Raises:
        StillRunning: it still runs after ``patience`` seconds.
    """
    state = living(var.run_file)
    if state is None:
        return False
    with contextlib.suppress(ProcessLookupError):  # it may have ended just now
        os.kill(state.supervisor_pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while started(state.supervisor_pid) == state.supervisor_started:
        if time.monotonic() > deadline:
            raise StillRunning(
                f"supervisor {state.supervisor_pid} still stops services after {patience:g} s; look at "
                f"{var.logs}, or end it with `kill -9 {state.supervisor_pid}`"
            )
        time.sleep(0.05)
    return True

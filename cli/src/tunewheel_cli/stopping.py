"""Stops a wheel that another process supervises."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from tunewheel_contracts.errors import TunewheelError

from tunewheel_cli.places import Var
from tunewheel_cli.run_state import living, started

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

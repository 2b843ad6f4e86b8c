"""Kills a wheel's services with -9 at chosen moments, and sees the supervisor bring them back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tunewheel_local.launch import Wheel
from tunewheel_local.supervisor import State

from ..integration.bus import until

PATIENCE_SECONDS = 900.0


@dataclass
class Reaper:
    """``killed`` names whom it killed in the middle of its work, in the order of their deaths."""

    wheel: Wheel
    killed: list[str] = field(default_factory=list)

    async def kill(self, service: str, when: Callable[[], bool], *, hold: Path | None = None) -> None:
        """Kill ``service`` as soon as ``when`` holds; return once it is back and its helpers are gone.

        ``hold`` is the file that keeps it from coming further (``held.py``); the next process may.
        """
        kept = self.wheel.supervisor[service]
        await until(when, patience=PATIENCE_SECONDS)
        process = psutil.Process(kept.program.pid)
        helpers = process.children(recursive=True)
        process.kill()
        if hold is not None:
            hold.unlink()
        self.killed.append(service)
        await until(lambda: kept.restarts == 1 and kept.state is State.READY, patience=PATIENCE_SECONDS)
        await until(lambda: not any(is_alive(helper) for helper in helpers))


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

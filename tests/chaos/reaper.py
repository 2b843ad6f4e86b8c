"""Kills a wheel's services with -9 at chosen moments, and sees the supervisor bring them back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import psutil
from tunewheel_cli.launch import Wheel
from tunewheel_cli.supervisor import State

from ..integration.bus import until

PATIENCE_SECONDS = 900.0


@dataclass
class Reaper:
    """``killed`` names whom it killed in the middle of its work, in the order of their deaths."""

    wheel: Wheel
    killed: list[str] = field(default_factory=list)

    async def kill(self, service: str, when: Callable[[], bool]) -> None:
        """Kill ``service`` as soon as ``when`` holds; return once it is back and its helpers are gone."""
        kept = self.wheel.supervisor[service]
        await until(when, patience=PATIENCE_SECONDS)
        process = psutil.Process(kept.program.pid)
        helpers = process.children(recursive=True)
        process.kill()
        self.killed.append(service)
        await until(lambda: kept.restarts == 1 and kept.state is State.READY, patience=PATIENCE_SECONDS)
        await until(lambda: not any(is_alive(helper) for helper in helpers))


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

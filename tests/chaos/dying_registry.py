"""The registry as it is, except that it dies. A module of its own: a fork imports it without the tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tunewheel_registry.main import make_app
from tunewheel_registry.settings import Settings


def serve(environment: dict[str, str], log: Path, left: int) -> None:
    """Be the service until event number ``left`` was acknowledged, and die with -9 then."""
    os.environ.update(environment)
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    service = make_app(Settings())
    publish = service.publish

    async def publish_and_die(envelope: Any) -> None:
        nonlocal left
        await publish(envelope)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    service.publish = publish_and_die
    service.run()

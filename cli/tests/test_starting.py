"""A wheel that is started in the background, as the command that waits for it sees it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tunewheel_cli import leash
from tunewheel_cli.launch import Wheel
from tunewheel_cli.main import app
from tunewheel_cli.run_state import RunState
from typer.testing import CliRunner


def test_the_last_word_of_a_supervisor_is_heard_however_late_the_command_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWHEEL_VAR", str(tmp_path))
    last = RunState(
        phase="failed",
        bootstrap_servers="",
        supervisor_pid=1,
        supervisor_started=0.0,
        error="registry: exited",
    )

    class Supervisor:
        """Says why it ends and has ended when it is looked at."""

        def poll(self) -> int:
            last.write(tmp_path / "run.json")
            return 1

    def spawn(*_: Any, **__: Any) -> Any:
        return Supervisor()

    monkeypatch.setattr(leash, "spawn", spawn)
    result = CliRunner().invoke(app, ["up", "--detach", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"].startswith("registry: exited")


def test_a_wheel_that_is_stopped_before_it_was_ready_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(_: Wheel) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    monkeypatch.setattr(Wheel, "start", start)
    assert CliRunner().invoke(app, ["up", "--var", str(tmp_path)]).exit_code == 1

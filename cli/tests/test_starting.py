"""A wheel that is started in the background, as the command that waits for it sees it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tunewheel_cli.frame import app
from tunewheel_local import leash
from tunewheel_local.launch import Wheel
from tunewheel_local.run_state import RunState, started
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


def test_a_second_wheel_on_a_folder_says_nothing_of_stopping(tmp_path: Path) -> None:
    RunState(
        phase="running", bootstrap_servers="h:1", supervisor_pid=os.getpid(),
        supervisor_started=started(os.getpid()) or 0.0,
    ).write(tmp_path / "run.json")  # fmt: skip
    result = CliRunner().invoke(app, ["up", "--var", str(tmp_path)])
    assert result.exit_code == 1
    assert "a wheel already runs here" in result.stderr
    assert "stopping" not in result.stderr


def test_a_wheel_in_the_background_says_where_it_is_and_what_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = RunState(
        phase="running", bootstrap_servers="127.0.0.1:1", supervisor_pid=1, supervisor_started=0.0,
        services={"gateway": {"url": "http://127.0.0.1:2", "state": "ready", "note": ""}},
    )  # fmt: skip

    class Supervisor:
        def poll(self) -> None:
            state.write(tmp_path / "run.json")

    def spawn(*_: Any, **__: Any) -> Any:
        return Supervisor()

    monkeypatch.setattr(leash, "spawn", spawn)
    monkeypatch.delenv("TUNEWHEEL_VAR", raising=False)
    command = ["up", "--detach", "--services", "gateway"]
    result = CliRunner().invoke(app, [*command, "--var", str(tmp_path)])
    assert result.exit_code == 0
    said = " ".join(result.stderr.split())
    assert "Kafka 127.0.0.1:1 gateway http://127.0.0.1:2" in said
    assert f"`tunewheel down --var {tmp_path}` stops everything." in said
    monkeypatch.setenv("TUNEWHEEL_VAR", str(tmp_path))
    (tmp_path / "run.json").unlink()
    assert "`tunewheel down` stops everything." in CliRunner().invoke(app, command).stderr


def test_a_wheel_that_is_stopped_before_it_was_ready_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(_: Wheel) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    monkeypatch.setattr(Wheel, "start", start)
    assert CliRunner().invoke(app, ["up", "--var", str(tmp_path)]).exit_code == 1


@pytest.mark.parametrize("folder", ["~nobody-here/x", "file", "file/models"])
def test_a_cache_folder_that_is_none_is_refused_by_the_name_of_its_setting(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEWHEEL_CACHE_DIR", folder)
    result = CliRunner().invoke(app, ["up"])
    assert result.exit_code == 2
    assert result.stderr.startswith("tunewheel: TUNEWHEEL_CACHE_DIR: ")
    assert not (tmp_path / "var").exists()

"""``tunewheel up`` as a person runs it: all ready, crashes mended, stopped in order, found again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

import psutil
import pytest
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.roster import choose
from tunewheel_local.run_state import RunState, living
from tunewheel_testing.folders import contents
from tunewheel_testing.waiting import wait_for

from .wheels import free_ports

pytestmark = pytest.mark.integration


class Shell:
    """Runs the command on a folder of the test's own, with no setting but those of ``environment``."""

    def __init__(self, var: Path, cwd: Path | None = None, **environment: str) -> None:
        self.var, self.cwd = var, cwd
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("TUNEWHEEL_")}
        self.env |= {"TUNEWHEEL_VAR": str(var)} | environment

    def run(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.tell(*arguments, "--json", code=code).stdout)

    def tell(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tunewheel_cli.main", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=1_200, env=self.env, cwd=self.cwd
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    @property
    def state(self) -> RunState:
        state = living(self.var / "run.json")
        assert state is not None
        return state


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "var")
    yield shell
    shell.run("down")


def options(*services: str) -> list[str]:
    chosen = ["--services", ",".join(services)] if services else ["--only", "broker"]
    ports = [f"--port={name}={port}" for name, port in free_ports(choose(services)).items()]
    return ["--detach", "--kafka-port", str(free_port()), *ports, *chosen]


def up(shell: Shell, *services: str) -> Any:
    return shell.run("up", *options(*services))


def status(url: str, key: str = "") -> int:
    """Return what a service answers."""
    request = Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urlopen(request) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


@pytest.mark.nightly("kills")
def test_a_wheel_is_started_asked_crashed_stopped_killed_and_found_again(shell: Shell) -> None:
    """One life of a wheel: each start of one costs ten seconds of a processor."""
    told = shell.tell("up", *options("ingest", "registry", "console")).stderr
    all_are_ready(shell)
    callers_are_known_and_the_command_line_is_one_of_them(shell, told)
    a_crash_is_mended(shell)
    key = shell.run("key", "show")["key"]
    it_stops_in_order(shell)

    again = up(shell, "registry")
    assert again["services"]["broker"]["state"] == "ready"
    assert shell.run("admin", "topics")["in_order"], "the second up finds the data of the first"
    assert shell.run("key", "show")["key"] == key, "and its key"

    everything_dies_with_a_killed_supervisor(shell)
    assert up(shell)["services"]["broker"]["state"] == "ready", "what it left behind is in nobody's way"


def all_are_ready(shell: Shell) -> None:
    services = shell.run("status")["services"]
    assert {name: service["state"] for name, service in services.items()} == {
        "broker": "ready",
        "ingest": "ready",
        "registry": "ready",
        "console": "ready",
    }
    with urlopen(f"{services['ingest']['health_url']}/health/ready") as answer:
        assert json.load(answer)["ready"] is True
    assert "already runs here" in shell.run("up", "--only", "broker", code=1)["error"]
    assert shell.run("admin", "topics")["in_order"]


def callers_are_known_and_the_command_line_is_one_of_them(shell: Shell, told: str) -> None:
    services = shell.state.services
    models = f"{services['registry']['url']}/v1/projects/none/models"
    assert status(models) == status(models, "tw-nobody's") == 401
    key = shell.run("key", "show")["key"]
    assert status(models, key) == 200

    link = next(word for word in told.split() if word.startswith(f"{services['console']['url']}/login?link="))
    fresh = shell.run("login")["url"]
    for secret in (key, link.partition("link=")[2], fresh.partition("link=")[2]):
        kept = [path.name for path, data in contents(shell.var) if secret.encode() in data]
        assert sorted(kept) == (["api-key", "contexts.yaml"] if secret == key else [])
    browser = build_opener(HTTPCookieProcessor())
    with browser.open(fresh) as page:
        assert (page.status, urlsplit(page.url).path) == (200, "/projects")

    reader = shell.run("key", "add", "reader", "--role", "viewer")["key"]
    wait_for(lambda: status(models, reader) == 200)
    shell.run("key", "revoke", "reader")
    wait_for(lambda: status(models, reader) == 401)
    shell.env["TUNEWHEEL_API_KEY"] = reader
    assert "this API key is unknown" in shell.run("login", code=7)["error"]
    del shell.env["TUNEWHEEL_API_KEY"]
    assert shell.run("status")["identity"]["mode"] == "required"


def a_crash_is_mended(shell: Shell) -> None:
    killed = shell.state.services["ingest"]["pid"]
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: shell.state.services["ingest"]["restarts"] == 1)
    wait_for(lambda: shell.state.services["ingest"]["state"] == "ready")
    assert shell.state.services["ingest"]["pid"] != killed


def it_stops_in_order(shell: Shell) -> None:
    pids = [service["pid"] for service in shell.state.services.values()]
    assert shell.run("down") == {"stopped": True}
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not (shell.var / "run.json").exists()
    assert "Finished server process" in (shell.var / "logs" / "ingest.log").read_text()


def everything_dies_with_a_killed_supervisor(shell: Shell) -> None:
    state = shell.state
    pids = [service["pid"] for service in state.services.values()]
    os.kill(state.supervisor_pid, signal.SIGKILL)
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert living(shell.var / "run.json") is None


@pytest.mark.nightly("kills")
def test_a_service_that_cannot_start_ends_up_with_its_log(shell: Shell) -> None:
    shell.env["TUNEWHEEL_STORE_URL"] = "nonsense://store"
    error = shell.run("up", *options("registry"), code=1)["error"]
    assert error.startswith("registry: exited with code 1; given up after 1 restarts")
    assert "nonsense" in error
    assert living(shell.var / "run.json") is None

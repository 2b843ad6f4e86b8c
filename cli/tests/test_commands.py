"""The command at the terminal: quick help, one-line errors, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunewheel_cli.frame import app
from tunewheel_local.launch import Plan, Wheel
from tunewheel_local.places import Var
from tunewheel_local.run_state import RunState
from typer.testing import CliRunner

runner = CliRunner()
NOWHERE = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWHEEL_VAR", str(tmp_path / "var"))
    return tmp_path / "var"


def run(*arguments: str) -> tuple[int, str, str]:
    result = runner.invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_wheel_notes_the_store_of_its_environment_and_another_release_reads_it(tmp_path: Path) -> None:
    state = Wheel(Plan(Var.at(tmp_path), (), extra_env={"TUNEWHEEL_STORE_URL": "s3://elsewhere"})).state
    assert state.store_url == "s3://elsewhere"
    state.write(file := tmp_path / "run.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"of_a_later_release": 1}))
    assert RunState.read(file) == state


@pytest.mark.parametrize("command", [("admin", "topics"), ("admin", "topics", "--apply")])
def test_no_kafka_is_exit_5_and_says_what_to_do(command: tuple[str, ...]) -> None:
    code, _, err = run(*command, "--bootstrap-servers", NOWHERE)
    assert code == 5
    assert err.splitlines()[:-1] == ([f"writing to the Kafka at {NOWHERE}"] if "--apply" in command else [])
    assert f"no connection to Kafka: {NOWHERE} cannot be reached" in err
    assert "tunewheel up" in err


def test_errors_are_json_when_asked_for() -> None:
    code, out, err = run("admin", "topics", "--bootstrap-servers", NOWHERE, "--json")
    assert (code, err) == (5, "")
    assert json.loads(out)["kind"] == "TransientError"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("up", "--services", "nope"), "no service is called 'nope'; choose from engine"),
        (("up", "--only", "nope"), "--only: no service is called 'nope'; choose from broker, engine"),
        (("up", "--kafka-port", "70000"), "--kafka-port"),
        (("up", "--only", "ingest", "--services", "curate"), "--only: cannot be given together"),
        (("up", "--port", "console"), "is not NAME=N"),
        (("up", "--port", "nope=8090"), "the names are engine, engine-health, ingest"),
        (("up", "--port", "console=99999"), "99999 is no port"),
        (("label", "list", "-p", "a/b"), "'a/b' is no project's name"),
        (("lineage", "run-1", "-p", "a/b"), "'a/b' is no project's name"),
        (("watch", "--topic", "nope"), "there is no topic 'nope'"),
        (
            ("doctor", "--engine-url", "http://me:pw@h:1"),
            "--engine-url: holds a name or password",
        ),
        (("admin", "topics", "--security-protocol", "TLS"), "--security-protocol: "),
        (("publish", "x", "-p", "p", "--withdraw-deleted"), "--withdraw-deleted: is for --watch"),
        (("publish", "x.md", "-p", "p", "--watch"), "--watch: x.md is no folder"),
        (("forget", "-p", "p", "--requested-by", "m"), "--customer: or --source must say what to erase"),
        (
            ("forget", "-p", "p", "--requested-by", "m", "--customer", "c", "--source", "s"),
            "exactly one of the two",
        ),
    ],
)
def test_a_wrong_option_is_exit_2_and_named(arguments: tuple[str, ...], words: str) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert words in err


def test_a_ca_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    options = ("--security-protocol", "SSL", "--ssl-cafile", str(tmp_path / "nope.pem"))
    code, _, err = run("admin", "topics", *options)
    assert code == 2
    assert "--ssl-cafile" in err


def test_down_where_nothing_runs_is_fine(var: Path) -> None:
    assert run("down") == (0, f"nothing runs on {var}\n", "")


@pytest.mark.parametrize("servers", ["localhost:abc", "localhost:0", "a:9092, b:9092", ":9092", "a:9092,"])
def test_an_address_that_is_none_is_named(servers: str) -> None:
    code, _, err = run("admin", "topics", "--bootstrap-servers", servers)
    assert code == 2
    assert err == (
        f"tunewheel: --bootstrap-servers: must be host:port; separate several by commas, not {servers!r}\n"
    )


@pytest.mark.parametrize("servers", ["localhost", "[::1]:9092", "::1", "kafka-1.example:9092,10.0.0.2:9092"])
def test_addresses_as_kafka_takes_them(servers: str) -> None:
    from tunewheel_runtime.settings import ServiceSettings

    assert ServiceSettings(bootstrap_servers=servers).bootstrap_servers == servers

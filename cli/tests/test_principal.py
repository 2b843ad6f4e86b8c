"""Whose name the events of the command line bear."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tunewheel_cli.client import principal_of, warn_unnamed
from tunewheel_cli.publishing.events import fields_of, make_event
from tunewheel_cli.publishing.items import Found, Kind, Refusal
from tunewheel_contracts.principal import Principal
from tunewheel_local.connection import InvalidOption
from tunewheel_local.places import Var
from tunewheel_local.run_state import RunState, started
from tunewheel_local.wheel_secrets import make_secrets
from tunewheel_runtime.identity import key_file

HERE = "localhost:9092"
LOCAL = Principal(name="local")


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Var:
    for name in ("TUNEWHEEL_API_KEY", "TUNEWHEEL_API_KEYS_FILE", "TUNEWHEEL_PRINCIPAL"):
        monkeypatch.delenv(name, raising=False)
    return Var(tmp_path / "var")


def note(var: Var, *, identity: str = "required", keys_file: Path | None = None) -> None:
    RunState(
        supervisor_pid=os.getpid(),
        supervisor_started=started(os.getpid()) or 0.0,
        phase="running",
        bootstrap_servers=HERE,
        identity=identity,
        keys_file=str(keys_file or var.keys_file),
    ).write(var.run_file)


def test_on_the_kafka_of_the_wheel_here_it_is_the_wheels_own(var: Var, tmp_path: Path) -> None:
    assert principal_of(var, HERE) is None
    note(var)
    assert principal_of(var, HERE) == LOCAL
    assert principal_of(var, "kafka.example:9092") is None, "another wheel may have a key of that name"
    note(var, keys_file=tmp_path / "users.yaml")
    assert principal_of(var, HERE) is None, "its services know no such key"


def test_the_key_of_the_environment_is_named_by_the_file_of_keys(
    var: Var, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(var)
    monkeypatch.setenv("TUNEWHEEL_API_KEY", "tw-of-another-file")
    assert principal_of(var, HERE) is None
    make_secrets(var, pseudonyms=True)
    assert principal_of(var, HERE) is None
    own = key_file.add(var.keys_file, "desk", roles=("publisher",), projects=(), groups=())
    monkeypatch.setenv("TUNEWHEEL_API_KEY", own)
    assert principal_of(var, "kafka.example:9092") == Principal(name="desk")
    theirs = tmp_path / "theirs.yaml"
    monkeypatch.setenv("TUNEWHEEL_API_KEYS_FILE", str(theirs))
    key = key_file.add(theirs, "nightly", roles=("publisher",), projects=(), groups=())
    monkeypatch.setenv("TUNEWHEEL_API_KEY", key)
    assert principal_of(var, HERE) == Principal(name="nightly")


def test_a_name_that_is_given_wins(var: Var, monkeypatch: pytest.MonkeyPatch) -> None:
    note(var)
    monkeypatch.setenv("TUNEWHEEL_PRINCIPAL", "nightly")
    assert principal_of(var, HERE) == Principal(name="nightly")
    monkeypatch.setenv("TUNEWHEEL_PRINCIPAL", "x" * 2_000)
    with pytest.raises(InvalidOption, match="TUNEWHEEL_PRINCIPAL: "):
        principal_of(var, HERE)


def test_nobodys_name_is_told_unless_identity_is_open(var: Var, capsys: pytest.CaptureFixture[str]) -> None:
    warn_unnamed(var)
    assert "set TUNEWHEEL_PRINCIPAL to the name of your key" in capsys.readouterr().err
    note(var, identity="open")
    warn_unnamed(var)
    assert capsys.readouterr().err == ""


def test_a_record_is_published_by_who_publishes_it_whatever_it_says() -> None:
    record = {"body": "x", "principal": {"name": "somebody else"}}
    named, nobodys = (
        make_event(Found("f", 1, dict(record)), project="p", kind=Kind.TICKET, principal=principal)
        for principal in (LOCAL, None)
    )
    assert not isinstance(named, Refusal)
    assert not isinstance(nobodys, Refusal)
    assert (named.data.principal, nobodys.data.principal) == (LOCAL, None)
    assert named.id == nobodys.id, "the same ticket, whoever sends it"
    assert "principal" not in fields_of(None)

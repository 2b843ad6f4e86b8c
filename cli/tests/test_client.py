"""Whom the command line sends a key to, and how a refusal reaches the person at the terminal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tunewheel_local.connection import InvalidOption, NoWheel
from tunewheel_local.endpoint import Endpoint
from tunewheel_local.places import Var
from tunewheel_local.run_state import RunState, started
from tunewheel_local.wheel_secrets import make_secrets

USER_KEY = "tw-of-the-user"
UNKNOWN = {"error": {"message": "this API key is unknown; ask for a new one", "type": "authentication_error"}}
LACKING = {"error": {"message": "bob lacks the role application in project 'p'; ask for it"}}


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Var:
    monkeypatch.delenv("TUNEWHEEL_API_KEY", raising=False)
    return Var(tmp_path / "var")


def note(var: Var, *, supervisor: int | None = None, keys_file: Path | None = None, **urls: str) -> None:
    """Write down a wheel that runs in this process, or in ``supervisor``."""
    RunState(
        supervisor_pid=supervisor or os.getpid(),
        supervisor_started=started(os.getpid()) or 0.0,
        phase="running",
        bootstrap_servers="",
        identity="required",
        keys_file=str(keys_file or var.keys_file),
        services={name: {"url": url} for name, url in urls.items()},
    ).write(var.run_file)


def test_the_wheels_key_goes_to_the_wheels_own_addresses_alone(var: Var) -> None:
    key = make_secrets(var, pseudonyms=True).api_key
    note(var, gateway="http://127.0.0.1:8100", ingest="http://127.0.0.1:8101")
    assert Endpoint.of("gateway", var) == Endpoint("gateway", "http://127.0.0.1:8100", key)
    assert Endpoint.of("gateway", var, url="http://127.0.0.1:8100/").key == key
    for other in (
        "http://127.0.0.1:8102", "https://127.0.0.1:8100", "http://gateway.example:8100", "http://localhost:8100",
        "http://127.0.0.1:8100@evil.example", "http://127.0.0.1:81000", "http://127.0.0.1:8100.evil.example",
    ):  # fmt: skip
        assert Endpoint.of("gateway", var, url=other).key is None, other
    assert Endpoint.of("console", var).key is None, "this wheel has none: whoever listens there is another"


def test_nobody_gets_the_key_of_a_wheel_that_does_not_run(var: Var) -> None:
    make_secrets(var, pseudonyms=True)
    gateway = Endpoint.of("gateway", var)
    assert (gateway.url, gateway.key) == ("http://127.0.0.1:8100", None)
    with pytest.raises(NoWheel):
        gateway.require_named()
    Endpoint.of("gateway", var, url=gateway.url).require_named()
    note(var, supervisor=1, gateway="http://127.0.0.1:8100")
    assert Endpoint.of("gateway", var).key is None


def test_the_wheels_key_is_not_sent_where_callers_are_known_by_another_file(var: Var, tmp_path: Path) -> None:
    make_secrets(var, pseudonyms=True)
    note(var, keys_file=tmp_path / "users.yaml", gateway="http://127.0.0.1:8100")
    assert Endpoint.of("gateway", var).key is None


def test_the_key_of_the_environment_wins(var: Var, monkeypatch: pytest.MonkeyPatch) -> None:
    make_secrets(var, pseudonyms=True)
    note(var, gateway="http://127.0.0.1:8100")
    monkeypatch.setenv("TUNEWHEEL_API_KEY", f"{USER_KEY}\n")
    for url in (None, "https://gateway.example"):
        assert Endpoint.of("gateway", var, url=url).headers == {"Authorization": f"Bearer {USER_KEY}"}
    assert USER_KEY not in repr(Endpoint.of("gateway", var))
    monkeypatch.setenv("TUNEWHEEL_API_KEY", "schlüssel")
    with pytest.raises(InvalidOption, match="TUNEWHEEL_API_KEY: holds a character"):
        Endpoint.of("gateway", var)


def test_a_key_may_lie_in_a_file_of_its_name(
    var: Var, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "TUNEWHEEL_API_KEY").write_text(f"{USER_KEY}\n", "utf-8")
    monkeypatch.setenv("TUNEWHEEL_SECRETS_DIR", str(tmp_path))
    key = Endpoint.of("gateway", var, url="http://gateway.example:8100").key
    assert key is not None
    assert key.get_secret_value() == USER_KEY
    monkeypatch.setenv("TUNEWHEEL_API_KEY", "tw-of-the-variable")
    key = Endpoint.of("gateway", var).key
    assert key is not None
    assert key.get_secret_value() == "tw-of-the-variable"

"""How the command's options and variables become a connection, and those of the services that it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import SecretStr
from tunewheel_cli.frame import app as main
from tunewheel_cli.reach import Reach, reaching
from tunewheel_contracts.errors import TunewheelError
from tunewheel_local.connection import Connection, InvalidOption, NoWheel, as_environment
from tunewheel_local.places import Var
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.settings import ServiceSettings
from typer.testing import CliRunner

WITHOUT_OPTION = {"ssl_keyfile_password", "sasl_oauth_client_secret", "secrets_dir"}
"""Secrets, and where they lie: other users of the machine see what a command is started with."""

TOKENS = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}


def test_every_setting_of_the_connection_has_an_option_but_for_secrets() -> None:
    assert set(KafkaSettings.model_fields) - WITHOUT_OPTION == set(Connection.__dataclass_fields__)


@pytest.mark.parametrize(
    "told",
    [
        {"security_protocol": "SSL", "ssl_cafile": Path("ca"), "ssl_certfile": Path("c"),
         "ssl_keyfile": Path("k"), "ssl_keyfile_password": SecretStr("p")},
        {"security_protocol": "SASL_SSL", "sasl_username": "u", "sasl_password": SecretStr("p")},
        TOKENS | {"sasl_oauth_token_file": Path("t")},
        TOKENS | {"sasl_oauth_token_url": "https://example.org/t", "sasl_oauth_client_id": "c",
                  "sasl_oauth_client_secret": SecretStr("s"), "sasl_oauth_scope": "a b"},
    ],
)  # fmt: skip
def test_a_service_is_told_the_connection_whole(
    told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = KafkaSettings(bootstrap_servers="a:1,b:2", **told)
    for name, value in as_environment(given).items():
        monkeypatch.setenv(name, value)
    service = ServiceSettings()
    assert {name: getattr(service, name) for name in KafkaSettings.model_fields} == given.model_dump()


def test_what_is_missing_or_wrong_is_named_as_its_user_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidOption, match="--ssl-keyfile: is missing beside ssl_certfile"):
        Connection(ssl_certfile=Path("c.pem")).client_options()
    with pytest.raises(InvalidOption, match=r"--ssl-cafile: no/ca\.pem cannot be read: No such file"):
        Connection(security_protocol="SSL", ssl_cafile=Path("no/ca.pem")).client_options()
    monkeypatch.setenv("TUNEWHEEL_SASL_OAUTH_TOKEN_URL", "https://example.org/t")
    tokens = Connection(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", sasl_oauth_client_id="c")
    with pytest.raises(InvalidOption, match="TUNEWHEEL_SASL_OAUTH_CLIENT_SECRET: is missing"):
        tokens.client_options()
    with pytest.raises(InvalidOption, match=r"--security-protocol: .*, not 'TLS'"):
        Connection(security_protocol="TLS").client_options()


def test_no_message_shows_a_password() -> None:
    with pytest.raises(InvalidOption) as wrong:
        Connection(security_protocol="SASL_SSL", sasl_password="hunter-two").client_options()
    assert "hunter-two" not in str(wrong.value)
    assert "--sasl-username: is missing" in str(wrong.value)


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of a folder without a wheel, where no variable names a Kafka."""
    monkeypatch.delenv("TUNEWHEEL_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.delenv("TUNEWHEEL_URL", raising=False)
    return ["--var", str(tmp_path)]


COMMANDS = (
    ("project", "declare", "examples/helpdesk/project.yaml"),
    ("publish", "x.jsonl", "-p", "desk"),
    ("dataset", "build", "-p", "desk"),
    ("forget", "-p", "desk", "--requested-by", "privacy", "--customer", "C-7", "--yes"),
    ("withdraw", "a.md", "-p", "desk"),
    ("project", "remove", "desk", "--yes"),
    ("model", "promote", "desk-1", "-p", "desk", "--reason", "better"),
    ("admin", "topics", "--apply"),
    ("status",),
    ("label", "list", "-p", "desk"),
    ("ask", "Hello?", "-p", "desk"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_a_command_that_names_no_wheel_asks_nobody(command: tuple[str, ...], nobody: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, *nobody, "--json"])
    assert result.exit_code == 2, result.output
    assert json.loads(result.stdout)["kind"] in ("NoWheel", "NoAddress")


def test_a_command_says_before_it_writes_which_wheel_it_writes_to(nobody: list[str]) -> None:
    def command(reach: Reach) -> None:
        reach.client_options()
        reach.tell_place()
        reach.tell_place()
        raise TunewheelError("broken")

    app = typer.Typer()
    app.command()(reaching(command))
    named = [*nobody, "--bootstrap-servers", "h:1", "--topic-prefix", "acme."]
    result = CliRunner().invoke(app, named)
    assert result.stderr == "writing to the Kafka at h:1, topics acme.*\ntunewheel: broken\n"


def test_a_kafka_in_a_folder_of_secrets_is_named(
    nobody: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoWheel):
        Connection().require_named(Var.at(tmp_path))
    (tmp_path / "TUNEWHEEL_BOOTSTRAP_SERVERS").write_text("h:1")
    monkeypatch.setenv("TUNEWHEEL_SECRETS_DIR", str(tmp_path))
    Connection().require_named(Var.at(tmp_path))

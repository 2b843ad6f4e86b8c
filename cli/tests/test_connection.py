"""How the command's options and variables become a connection, and those of the services that it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import SecretStr
from tunewheel_cli.connection import Connection, InvalidOption, as_environment
from tunewheel_cli.main import app as main
from tunewheel_cli.places import Var
from tunewheel_cli.reach import Reach, reaching
from tunewheel_contracts.errors import TunewheelError
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


@pytest.mark.parametrize(
    ("arguments", "noted"),
    [((), True), (("--bootstrap-servers", "h:1"), False), (("--json",), False)],
)
def test_a_kafka_that_nobody_named_is_told_from_the_wheel_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], noted: bool
) -> None:
    monkeypatch.delenv("TUNEWHEEL_BOOTSTRAP_SERVERS", raising=False)

    def command(reach: Reach) -> None:
        reach.client_options()

    app = typer.Typer()
    app.command()(reaching(command))
    result = CliRunner().invoke(app, ["--var", str(tmp_path), *arguments])
    assert result.exit_code == 0
    note = f"note: no wheel runs on {tmp_path}; this is the Kafka at localhost:9092"
    assert (note in result.stderr) is noted


@pytest.mark.parametrize("leaves", [TunewheelError("broken"), SystemExit(1), typer.Exit(1)])
def test_a_command_that_fails_has_said_once_which_kafka_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: BaseException
) -> None:
    monkeypatch.delenv("TUNEWHEEL_BOOTSTRAP_SERVERS", raising=False)

    def command(reach: Reach) -> None:
        reach.client_options()
        reach.client_options()
        raise leaves

    app = typer.Typer()
    app.command()(reaching(command))
    result = CliRunner().invoke(app, ["--var", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.count("note: no wheel runs on") == 1
    assert result.stderr.startswith("note: no wheel runs on")


def test_forget_says_which_kafka_it_is_before_it_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNEWHEEL_BOOTSTRAP_SERVERS", raising=False)
    asked = ["--project", "desk", "--requested-by", "privacy", "--customer", "C-7"]
    result = CliRunner().invoke(main, ["forget", *asked, "--var", str(tmp_path)], input="n\n")
    assert result.exit_code == 1
    assert "note: no wheel runs on" in result.stderr


def test_a_kafka_in_a_folder_of_secrets_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEWHEEL_BOOTSTRAP_SERVERS", raising=False)
    assert Connection().is_default(Var.at(tmp_path))
    (tmp_path / "TUNEWHEEL_BOOTSTRAP_SERVERS").write_text("h:1")
    monkeypatch.setenv("TUNEWHEEL_SECRETS_DIR", str(tmp_path))
    assert not Connection().is_default(Var.at(tmp_path))

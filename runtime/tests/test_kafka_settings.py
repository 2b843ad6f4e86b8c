"""What says how Kafka is reached: half of a pair, and what a mechanism needs, is missed by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.process import run_service, wrong_settings
from tunewheel_runtime.service import Service
from tunewheel_runtime.settings import ServiceSettings

SECRET = "hunter-two"
CLIENT = {"sasl_oauth_client_id": "c"}
PAIR = CLIENT | {"sasl_oauth_client_secret": SECRET}
SASL = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512"}
OAUTH = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}
URL = {"sasl_oauth_token_url": "https://issuer.example.org/token"}


@pytest.mark.parametrize(
    ("told", "field", "reason"),
    [
        ({"ssl_certfile": "c.pem"}, "ssl_keyfile", "missing beside ssl_certfile"),
        ({"ssl_keyfile": "c.key"}, "ssl_certfile", "missing beside ssl_keyfile"),
        (SASL, "sasl_username", "missing; sasl_mechanism SCRAM-SHA-512 needs it"),
        (SASL | {"sasl_username": "u"}, "sasl_password", "missing; sasl_mechanism SCRAM-SHA-512 needs it"),
        (OAUTH, "sasl_oauth_token_file", "set one of the two"),
        (OAUTH | URL | {"sasl_oauth_token_file": "t"}, "sasl_oauth_token_file", "set one of the two"),
        (OAUTH | URL, "sasl_oauth_client_id", "missing; sasl_oauth_token_url needs it"),
        (OAUTH | URL | CLIENT, "sasl_oauth_client_secret", "missing; sasl_oauth_token_url needs it"),
        ({"sasl_oauth_token_url": "http://example.org/t"}, "sasl_oauth_token_url", "must be an https:// URL"),
        ({"sasl_oauth_token_url": "https://u:p@example.org"}, "sasl_oauth_token_url", "no user or password"),
        ({"sasl_oauth_token_url": "https:///t"}, "sasl_oauth_token_url", "must be an https:// URL"),
        ({"security_protocol": "TLS"}, "security_protocol", "SASL_SSL"),
        ({"sasl_mechanism": "GSSAPI"}, "sasl_mechanism", "OAUTHBEARER"),
    ],
)
def test_a_setting_that_is_wrong_or_missing_is_named(told: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        KafkaSettings(**told | {"ssl_keyfile_password": SECRET})
    ((named, words),) = wrong_settings(wrong.value)
    assert (named, reason in words) == (field, True), words
    assert SECRET not in str(wrong.value)
    with pytest.raises(ValidationError) as wrong:
        ServiceSettings.model_validate(told | {"ssl_keyfile_password": SECRET})
    assert SECRET not in str(wrong.value)


@pytest.mark.parametrize(
    "told",
    [
        {"security_protocol": "SSL", "ssl_certfile": "c.pem", "ssl_keyfile": "c.key"},
        SASL | {"sasl_username": "u", "sasl_password": SECRET},
        OAUTH | {"sasl_oauth_token_file": "token"},
        OAUTH | URL | PAIR,
        OAUTH | PAIR | {"sasl_oauth_token_url": "http://127.0.0.1:1/t"},
        {"sasl_mechanism": "OAUTHBEARER"},
    ],
)
def test_complete_settings_are_accepted_and_show_no_secret(told: dict[str, Any]) -> None:
    assert SECRET not in repr(KafkaSettings(**told))


def test_a_process_with_wrong_settings_ends_with_code_2_and_a_line_for_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"SSL_CERTFILE": "c.pem", "SSL_KEYFILE_PASSWORD": SECRET}
    for name, value in told.items():
        monkeypatch.setenv(f"TUNEWHEEL_{name}", value)
    with pytest.raises(SystemExit) as ended:
        run_service("ingest", ServiceSettings, lambda settings: Service("ingest", settings))
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("tunewheel-ingest: TUNEWHEEL_SSL_KEYFILE: is missing beside ssl_certfile")
    assert SECRET not in err

    monkeypatch.setenv("TUNEWHEEL_SECURITY_PROTOCOL", "TLS")
    monkeypatch.setenv("TUNEWHEEL_HTTP_PORT", "-1")
    with pytest.raises(SystemExit):
        run_service("ingest", ServiceSettings, lambda settings: Service("ingest", settings))
    named = {line.split()[1] for line in capsys.readouterr().err.splitlines()}
    assert named == {"TUNEWHEEL_HTTP_PORT:", "TUNEWHEEL_SECURITY_PROTOCOL:"}


def test_a_process_whose_certificate_cannot_be_read_ends_with_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"SECURITY_PROTOCOL": "SSL", "SSL_CAFILE": "no/such/ca.pem"}.items():
        monkeypatch.setenv(f"TUNEWHEEL_{name}", value)
    with pytest.raises(SystemExit) as ended:
        run_service("ingest", ServiceSettings, lambda settings: Service("ingest", settings))
    assert ended.value.code == 2
    assert "TUNEWHEEL_SSL_CAFILE: no/such/ca.pem cannot be read: No such file" in capsys.readouterr().err


def test_a_process_whose_stores_folder_cannot_be_made_ends_with_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUNEWHEEL_STORE_URL", (tmp_path / "file/store").as_uri())
    with pytest.raises(SystemExit) as ended:
        run_service("ingest", ServiceSettings, lambda settings: Service("ingest", settings))
    assert ended.value.code == 2
    assert f"TUNEWHEEL_STORE_URL: the folder {tmp_path}/file/store cannot be made" in capsys.readouterr().err

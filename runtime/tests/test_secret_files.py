"""Secrets as files: each setting from a file of its name, unless a variable tells it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from tunewheel_runtime.process import wrong_settings
from tunewheel_runtime.settings import ServiceSettings

SASL = {"security_protocol": "SASL_SSL", "sasl_username": "ada"}


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWHEEL_SECRETS_DIR", str(tmp_path))
    return tmp_path


def test_a_file_tells_what_the_variable_of_its_name_would(secrets: Path) -> None:
    (secrets / "TUNEWHEEL_SASL_PASSWORD").write_text("of-the-file\n", "utf-8")
    (secrets / "something-else").write_text("nobody's", "utf-8")
    settings = ServiceSettings(**SASL)
    assert settings.sasl_password is not None
    assert settings.sasl_password.get_secret_value() == "of-the-file"
    assert "of-the-file" not in repr(settings)


def test_a_variable_wins_over_the_file(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "TUNEWHEEL_SASL_PASSWORD").write_text("of-the-file", "utf-8")
    monkeypatch.setenv("TUNEWHEEL_SASL_PASSWORD", "of-the-variable")
    settings = ServiceSettings(**SASL)
    assert settings.sasl_password is not None
    assert settings.sasl_password.get_secret_value() == "of-the-variable"


def test_a_file_is_judged_as_the_variable_is(secrets: Path) -> None:
    (secrets / "TUNEWHEEL_RETRY_ATTEMPTS").write_text("none", "utf-8")
    with pytest.raises(ValidationError) as told:
        ServiceSettings()
    assert wrong_settings(told.value)[0][0] == "retry_attempts"


def test_a_file_that_is_no_text_and_a_folder_that_is_not_there_are_named(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets / "TUNEWHEEL_SASL_PASSWORD").write_bytes(b"\xff\xfe")
    with pytest.raises(ValidationError) as told:
        ServiceSettings(**SASL)
    ((field, reason),) = wrong_settings(told.value)
    assert field == "sasl_password"
    assert "TUNEWHEEL_SASL_PASSWORD cannot be read" in reason
    monkeypatch.setenv("TUNEWHEEL_SECRETS_DIR", str(secrets / "absent"))
    with pytest.raises(ValidationError) as told:
        ServiceSettings()
    ((field, reason),) = wrong_settings(told.value)
    assert field == "secrets_dir"
    assert "mount the secrets there" in reason


def test_an_empty_store_is_refused_with_what_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the images set it: a store inside the container would be nobody else's."""
    monkeypatch.setenv("TUNEWHEEL_STORE_URL", "")
    with pytest.raises(ValidationError) as told:
        ServiceSettings()
    ((field, reason),) = wrong_settings(told.value)
    assert field == "store_url"
    assert "s3://" in reason

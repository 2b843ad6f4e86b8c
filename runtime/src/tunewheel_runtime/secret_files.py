"""Reads settings from files, one per setting, as Docker and Kubernetes mount secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict


class SecretFiles(BaseSettings):
    """The base class of all settings. A setting without a ``TUNEWHEEL_*`` variable may be in a file of that
    name."""

    model_config = SettingsConfigDict(env_prefix="TUNEWHEEL_", extra="ignore")

    secrets_dir: Path | None = None
    """A folder, such as ``/run/secrets``, whose files are read once. The file ``TUNEWHEEL_SASL_PASSWORD``,
    for example, holds the value of the variable of that name. A variable that is set goes before the file."""

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        folder = values.get("secrets_dir")
        if folder is None:
            return values
        if not Path(folder).is_dir():
            raise _wrong("secrets_dir", f"{folder} is not a folder; mount the secrets there, or name another")
        files = {name: Path(folder) / f"TUNEWHEEL_{name.upper()}" for name in cls.model_fields}
        found = {name: _text(name, file) for name, file in files.items() if file.is_file()}
        return found | values


def _text(field: str, file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(field, f"the file {file} cannot be read: {error}") from error


def _wrong(field: str, reason: str) -> PydanticCustomError:
    return PydanticCustomError("secret_files", "{reason}", {"field": field, "reason": reason})

"""The settings of the curate service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from tunewheel_contracts.formats.allowed_sources import DEFAULT_HOSTS, Folders, Hosts
from tunewheel_contracts.topics import FOREVER
from tunewheel_runtime.webhooks import WebhookSettings


class Settings(WebhookSettings):
    """``TUNEWHEEL_*`` variables of the curate service."""

    policy_seconds: float = Field(default=0.5, gt=0)
    """Seconds between two checks whether a version is due."""
    compact_files: int = Field(default=64, ge=2)
    """The number of files from which the record table's files are merged."""
    append_batch: int = Field(default=2_000, ge=1)
    """Records appended to the table in one commit, at most."""
    record_days: int = Field(default=7, ge=FOREVER)
    """Records are deleted from the log so many days after they came, if the record table has them. -1: never.
    Erased people's texts stay on ``record.ingested`` until then. A lost record table is mended from a backup
    that is younger than this."""
    build_slots: int = Field(default=1, ge=1)
    """Builds at once, of different projects. Each has a process of its own."""
    build_attempts: int = Field(default=5, ge=1)
    """Attempts at a build before its request is rejected. An attempt counts if it ran out of memory, crashed,
    exceeded ``build_seconds``, was killed, or found a source that does not answer."""
    build_retry_seconds: float = Field(default=60.0, ge=0)
    """The longest wait after the first failed attempt. It doubles with every further failure."""
    build_seconds: float = Field(default=6 * 3600.0, gt=0)
    """The longest time that one attempt at a build may take."""
    eval_regression_set: Path | None = None
    """The regression set that eval uses. Set it for both services: curate drops examples that overlap it."""
    spec_hosts: Hosts = DEFAULT_HOSTS
    """The hosts that a spec may name (teachers, general data), separated by commas. ``host=VARIABLE`` also
    names the environment variable whose key that host gets:
    ``huggingface.co,hf.co,teacher.example=TUNEWHEEL_TEACHER_KEY``."""
    spec_folders: Folders = ""
    """The folders on curate's machine that a spec may read general data from, separated by commas. Where the
    store is a folder, its subfolder ``general/`` may always be read."""
    pseudonym_secret: SecretStr | None = Field(default=None, min_length=16)
    """The key of three things: pseudonyms of customers, sources and experts; the marks of what was held out;
    the stand-ins of ``pii.action: pseudonymise``. Every replica needs the same key. It must never change."""

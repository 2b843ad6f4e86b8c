"""What curate can be told from outside."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from tunewheel_contracts.formats.allowed_sources import DEFAULT_HOSTS, Folders, Hosts
from tunewheel_runtime.webhooks import WebhookSettings


class Settings(WebhookSettings):
    """``TUNEWHEEL_*`` variables of the curate service."""

    policy_seconds: float = Field(default=0.5, gt=0)
    """How often the build policies are asked whether a version is due."""
    compact_files: int = Field(default=64, ge=2)
    """The record table's files are merged once there are so many."""
    append_batch: int = Field(default=2_000, ge=1)
    """Records appended to the table in one commit, at most."""
    build_attempts: int = Field(default=5, ge=1)
    """How often a build is begun before its request is rejected, whatever ended it: no memory, a crash, its
    time, a restart by force, a source that does not answer."""
    build_retry_seconds: float = Field(default=60.0, ge=0)
    """The wait after the first attempt that failed, at most; it doubles with every further one."""
    build_seconds: float = Field(default=6 * 3600.0, gt=0)
    """The longest that an attempt at a build may take."""
    eval_regression_set: Path | None = None
    """The regression set that eval uses (told to both services), so that no example gives it away."""
    spec_hosts: Hosts = DEFAULT_HOSTS
    """The hosts that specs may have curate ask (teachers, replay), and the variable whose key a host may get:
    ``huggingface.co,hf.co,teacher.example=TUNEWHEEL_TEACHER_KEY``."""
    spec_folders: Folders = ""
    """The folders on curate's machine that specs may read general data from (replay), separated by commas;
    ``general/`` of a store that is a folder may always be read."""
    pseudonym_secret: SecretStr | None = Field(default=None, min_length=16)
    """Keys the pseudonyms of customers, sources and experts, the marks of what was held out, and the
    stand-ins of ``pii.action: pseudonymise``; the same wherever curate runs, and for good."""

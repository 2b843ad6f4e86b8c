"""What the index can be told from outside."""

from __future__ import annotations

from pydantic import Field, SecretStr
from tunewheel_contracts.formats.allowed_sources import DEFAULT_HOSTS, Hosts
from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """``TUNEWHEEL_*`` variables of the index."""

    index_quiet_seconds: float = Field(default=0.5, ge=0)
    """A version is built once a project's documents stayed the same for so long, and at the latest ten times
    as long after the first change."""
    index_retry_seconds: float = Field(default=86_400.0, gt=0)
    """Documents that were left out for a reason that may pass are tried again after a process started, and so
    often: the log is read from its beginning for that."""
    index_max_passages: int = Field(default=200_000, ge=1)
    """Of one project. Documents beyond are left out and counted: each gateway holds all in memory."""
    index_kept_versions: int = Field(default=10, ge=2)
    """Of each project, the newest: files of older ones are deleted."""
    spec_hosts: Hosts = DEFAULT_HOSTS
    """The hosts that specs may have the index ask for embeddings, and the variable whose key a host may get:
    ``vectors.example=TUNEWHEEL_EMBEDDING_KEY``."""
    pseudonym_secret: SecretStr | None = Field(default=None, min_length=16)
    """Keys the stand-ins of ``pii.action: pseudonymise``: curate's, so that both stand for the same."""

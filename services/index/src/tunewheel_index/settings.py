"""Settings of the index."""

from __future__ import annotations

from pydantic import Field, SecretStr
from tunewheel_contracts.formats.allowed_sources import DEFAULT_HOSTS, Hosts
from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """``TUNEWHEEL_*`` variables of the index."""

    index_quiet_seconds: float = Field(default=0.5, ge=0)
    """A version is built once a project's documents have not changed for this long, and at the latest ten
    times as long after the first change."""
    index_retry_seconds: float = Field(default=86_400.0, gt=0)
    """How often documents that were left out for a reason that may pass are tried again; they are also tried
    after a start. Each retry reads their records from the record table."""
    index_max_passages: int = Field(default=200_000, ge=1)
    """Most passages of one project, as each gateway holds them all in memory. Documents beyond the limit are
    left out and counted."""
    index_kept_versions: int = Field(default=10, ge=2)
    """How many of each project's newest versions are kept. The files of older ones are deleted."""
    spec_hosts: Hosts = DEFAULT_HOSTS
    """The hosts that a spec may name as embedding endpoints, each with the variable that holds the API key it
    may receive: ``vectors.example=TUNEWHEEL_EMBEDDING_KEY``."""
    pseudonym_secret: SecretStr | None = Field(default=None, min_length=16)
    """The secret of the pseudonyms for ``pii.action: pseudonymise``. Set the same one for curate, so that
    both make the same pseudonyms."""

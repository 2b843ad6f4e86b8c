"""Settings of the console."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr
from tunewheel_contracts.formats.allowed_sources import AllowedSources, Folders, Hosts
from tunewheel_runtime.settings import ServiceSettings


def _public(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("is no address for clients; write https://host, without a name or password")
    return url.rstrip("/")


def _networks(value: str) -> str:
    for part in filter(None, (part.strip() for part in value.split(","))):
        try:
            ip_network(part)
        except ValueError as error:
            raise ValueError(f"must be addresses or networks, separated by commas: {error}") from error
    return value


PublicUrl = Annotated[str, AfterValidator(_public)]
"""An address as clients outside the cluster call it."""


class Settings(ServiceSettings):
    """``TUNEWHEEL_*`` variables of the console."""

    recent_events: int = Field(default=1_000, ge=1)
    """How many of the latest events per partition are read at the start, of topics that carry traffic."""

    completions_kept: int = Field(default=100_000, ge=0)
    """How many of the latest completions of a project can be searched, with their texts. After the loss of
    the file in ``work_dir`` so many of each partition are read again. 0: none."""
    completions_days: float = Field(default=30.0, gt=0, le=3_650)
    """Older completions cannot be searched. The log has those of 30 days."""

    session_secret: SecretStr | None = Field(default=None, min_length=32)
    """The secret that signs the cookies of sessions. Without it each process makes its own. Then a session
    ends with the process, and is not valid in other replicas."""
    session_seconds: float = Field(default=28_800.0, gt=0)
    """How long a login lasts. It ends earlier if its token expires."""

    trusted_proxies: Annotated[str, AfterValidator(_networks)] = ""
    """Addresses and networks, such as ``10.0.0.0/8``, separated by commas, of proxies whose
    ``X-Forwarded-For`` is believed. Without them everybody behind a proxy shares its count of failed
    logins."""

    public_gateway_url: PublicUrl | None = None
    """The gateway's address for clients. ``GET /v1/me`` tells it, like those of ingest and of the console."""
    public_ingest_url: PublicUrl | None = None
    """Ingest's address for clients."""
    public_console_url: PublicUrl | None = None
    """The console's own address for clients."""

    registry_url: PublicUrl | None = None
    """The registry's address. The control API asks it about lineage, cards and comparisons."""
    registry_cafile: Path | None = None
    """The authority (PEM) of the registry's certificate, in addition to the system's."""
    gateway_url: PublicUrl | None = None
    """The gateway's address for this service. The control API asks it to search documents, and for the
    answers of its playground."""
    gateway_cafile: Path | None = None
    """The authority (PEM) of the gateway's certificate, in addition to the system's."""

    oidc_client_id: str | None = Field(default=None, min_length=1)
    """The id of the client with which people's command logs in at ``oidc_issuer`` (device grant).
    ``GET /v1/login`` tells it. Without it people log in with API keys alone."""
    oidc_scope: str = Field(default="openid", min_length=1)
    """The scopes that the command asks the issuer for, separated by spaces."""

    spec_hosts: Hosts | None = None
    """As curate's, so that a spec is refused when it is declared and not only at its build. None: hosts and
    folders are not checked here."""
    spec_folders: Folders = ""
    """As curate's."""


def allowed_sources(settings: Settings) -> AllowedSources | None:
    """Return the hosts and folders that specs may name; None: nobody has told them."""
    if settings.spec_hosts is None:
        return None
    return AllowedSources.configured(
        hosts=settings.spec_hosts, folders=settings.spec_folders, store_url=settings.store_url
    )

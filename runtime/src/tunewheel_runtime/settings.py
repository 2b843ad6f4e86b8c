"""The settings that every service has, read from ``TUNEWHEEL_*`` environment variables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator
from tunewheel_contracts.cache import InvalidCacheDir, cache_dir

from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.secret_files import SecretFiles

TELEMETRY_SECONDS = 30.0
"""Longest time for the last exports of traces, metrics and logs: 10 s each
(``OTEL_EXPORTER_OTLP_TIMEOUT``)."""
_NAME = re.compile(r"[a-z0-9_.-]+")
DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:]+\])(:\d{1,5})?")


def _listed(value: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in value.split(",") if part.strip())


def _as_browsers_send(origin: str) -> str:
    """Return an origin without its scheme's own port, which no browser writes."""
    scheme, _, authority = origin.partition("://")
    host, _, port = authority.rpartition(":")
    return f"{scheme}://{host}" if port.isdigit() and DEFAULT_PORTS.get(scheme) == int(port) else origin


def _list_of(pattern: re.Pattern[str], what: str) -> AfterValidator:
    """Return a validator of a text that is a list separated by commas."""

    def check(value: str) -> str:
        if not all(pattern.fullmatch(part) for part in _listed(value)):
            raise ValueError(f"must be {what}, separated by commas")
        return value

    return AfterValidator(check)


def _cache(named: str | Path) -> Path:
    try:
        return cache_dir(named)
    except InvalidCacheDir as error:
        raise ValueError(error.reason) from error


class HttpSettings(SecretFiles):
    """Settings of every process that listens on HTTP. This includes the engine, which does not use Kafka."""

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=0, ge=0, le=65_535)
    """0 takes any free port."""
    http_allowed_hosts: Annotated[str, _list_of(_NAME, "names without scheme and port")] = ""
    """Names, separated by commas, that a request's ``Host`` may have, besides ``localhost`` and IP addresses.
    Empty: on loopback no other name is allowed, elsewhere any name is."""
    http_allowed_origins: Annotated[str, _list_of(_ORIGIN, "scheme://host or scheme://host:port")] = ""
    """Origins such as ``https://console.example.org``, separated by commas, whose pages may call this
    service, besides its own pages."""
    health_host: str | None = None
    """Address of health and metrics, which anybody may read. Default: ``http_host``."""
    health_port: int = Field(default=0, ge=0, le=65_535)
    """0 takes any free port."""

    identity: Literal["required", "open"] = "required"
    """``required``: every request must have a key or token, and a file of keys must be set. ``open``: every
    caller may do everything; the service then listens on loopback only."""
    api_keys_file: Path | None = None
    """YAML or JSON file of hashed API keys and their roles. It is read again when it changes."""

    oidc_issuer: str | None = None
    """``iss`` of the tokens that are accepted besides API keys, exactly as in the issuer's discovery
    document."""
    oidc_audience: str | None = None
    """``aud`` of tokens that are made for this service."""
    oidc_jwks_url: str | None = None
    """URL of the issuer's signing keys. Default: the one in
    ``<oidc_issuer>/.well-known/openid-configuration``."""
    oidc_cafile: Path | None = None
    """PEM file of the authority that signed the issuer's certificate. Default: the system's authorities."""
    oidc_groups_claim: str = Field(default="groups", min_length=1)
    """The claim that lists the holder's groups. The file of keys gives the groups their roles."""
    oidc_name_claim: str = Field(default="sub", min_length=1)
    """The claim that names the holder. It must be unique and never change."""

    tls_certfile: Path | None = None
    """PEM file of the certificate for both doors, followed by intermediate certificates. Without it the doors
    speak plain HTTP. Certificate and key are read again when one of the files changes."""
    tls_keyfile: Path | None = None
    """PEM file of the certificate's private key."""
    tls_keyfile_password: SecretStr | None = None
    """Password of the private key, if it is encrypted."""

    otlp_endpoint: str | None = None
    """URL of an OTLP/HTTP collector for traces, metrics and logs, such as ``http://localhost:4318``. Default:
    the SDK's own ``OTEL_EXPORTER_OTLP_ENDPOINT``. Without both, metrics are only at ``/metrics``."""
    log_json: bool = True
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    cache_dir: Annotated[Path, BeforeValidator(_cache)] = Field(default_factory=cache_dir)
    """Directory of files that can be downloaded or made again: base models, downloaded artifacts."""

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        return _listed(self.http_allowed_hosts)

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        return tuple(map(_as_browsers_send, _listed(self.http_allowed_origins)))


class ServiceSettings(HttpSettings, KafkaSettings):
    """Settings shared by all services. Each service has a subclass ``Settings``."""

    signing_key: SecretStr | None = None
    """The private key by which this service signs the commands that it publishes: a JSON Web Key of Ed25519
    with ``kid``. Each service that publishes commands has its own."""
    signing_keys_file: Path | None = None
    """JSON Web Key Set of the public keys of all services that publish commands. A new key is found without a
    restart."""

    session_timeout_ms: int = Field(default=10_000, ge=6_000)
    """Time after which the partitions of a dead worker move to another."""
    instance: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,100}$")
    """Unique name of this process among its replicas. A process that restarts with the same name gets its
    partitions back at once (KIP-345)."""

    store_url: str = "file://var/store"
    """Object store: ``file://``, ``s3://``, ``gs://``, ``az://`` or ``memory://``."""
    work_dir: Path | None = None
    """Directory of the files of running jobs. Default: ``<cache_dir>/work``."""

    publish_seconds: float = Field(default=10.0, gt=0)
    """Longest wait of a publish for the broker's acknowledgement. An HTTP request is then answered 503."""
    broker_lost_seconds: float = Field(default=60.0, gt=0)
    """``/health/ready`` answers 503 while the broker has been silent for longer than this."""
    retry_attempts: int = Field(default=50, ge=1)
    """Number of attempts. With these waits they take 11 to 22 minutes, so a broker or a store that is
    unavailable for some minutes stops no service."""
    retry_first_delay_seconds: float = Field(default=0.2, gt=0)
    retry_max_delay_seconds: float = Field(default=30.0, gt=0)
    dead_letter_limit: int = Field(default=500, ge=1)
    """If there are more dead letters than this among the latest ``dead_letter_window`` messages of a project
    on a topic, an error is logged and shown at ``/health/ready``."""
    dead_letter_window: int = Field(default=1_000, ge=1)
    shutdown_seconds: float = Field(default=30.0, gt=0)

    @field_validator("store_url")
    @classmethod
    def _is_named(cls, value: str) -> str:
        if not value:
            raise ValueError(
                "is empty; name the store that all services share, such as s3://bucket, or file:// and a "
                "folder that all of them mount"
            )
        return value

    @property
    def grace_seconds(self) -> float:
        """Longest time from SIGTERM to the end of the process, in which nothing is lost. It covers running
        requests, handlers, the producer and the last telemetry export."""
        return 2 * self.shutdown_seconds + self.publish_seconds + TELEMETRY_SECONDS

    def work_for(self, service: str) -> Path:
        """Return the directory in which ``service`` keeps the files of its running jobs."""
        return (self.work_dir or self.cache_dir / "work") / service

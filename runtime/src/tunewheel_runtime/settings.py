"""What every service can be told from outside, by ``TUNEWHEEL_*`` environment variables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_cache_path
from pydantic import AfterValidator, Field, SecretStr, field_validator

from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.secret_files import SecretFiles

TELEMETRY_SECONDS = 30.0
"""Three last exports of 10 s each, as ``OTEL_EXPORTER_OTLP_TIMEOUT`` has it."""
_NAME = re.compile(r"[a-z0-9_.-]+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:]+\])(:\d{1,5})?")


def _listed(value: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in value.split(",") if part.strip())


def _list_of(pattern: re.Pattern[str], what: str) -> AfterValidator:
    """Return the check of a text that is a list, separated by commas."""

    def check(value: str) -> str:
        if not all(pattern.fullmatch(part) for part in _listed(value)):
            raise ValueError(f"must be {what}, separated by commas")
        return value

    return AfterValidator(check)


class HttpSettings(SecretFiles):
    """Settings of everything that listens on HTTP, the engine too, which is not on the bus."""

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=0, ge=0, le=65_535)
    """0 takes any free port."""
    http_allowed_hosts: Annotated[str, _list_of(_NAME, "names without scheme and port")] = ""
    """Names, separated by commas, that a request's ``Host`` may be, beside ``localhost`` and IP addresses.
    Empty: no other name on loopback, any name elsewhere."""
    http_allowed_origins: Annotated[str, _list_of(_ORIGIN, "scheme://host or scheme://host:port")] = ""
    """Origins such as ``https://console.example.org``, separated by commas, whose pages may call, beside this
    service's own."""
    health_host: str | None = None
    """Where health and metrics are told, to anybody; default: ``http_host``."""
    health_port: int = Field(default=0, ge=0, le=65_535)
    """0 takes any free port."""

    identity: Literal["required", "open"] = "required"
    """``required``: a file of keys must be set, and every request says who it is from. ``open``: whoever
    reaches the service may do everything; it then listens on loopback only."""
    api_keys_file: Path | None = None
    """YAML or JSON of hashed API keys and of what they may do. Read anew when it changes."""

    oidc_issuer: str | None = None
    """``iss`` of the tokens that are taken beside API keys, as the issuer's discovery document has it."""
    oidc_audience: str | None = None
    """``aud`` of tokens that are made for this service."""
    oidc_jwks_url: str | None = None
    """Of the issuer's signing keys; default: as ``<oidc_issuer>/.well-known/openid-configuration`` says."""
    oidc_cafile: Path | None = None
    """PEM file of the authority behind the issuer; default: the system's."""
    oidc_groups_claim: str = Field(default="groups", min_length=1)
    """The claim that lists a holder's groups; the file of keys says what they may do."""
    oidc_name_claim: str = Field(default="sub", min_length=1)
    """The claim that names the holder, the same for ever and for nobody else."""

    tls_certfile: Path | None = None
    """PEM: the certificate that both doors show, then those between it and its authority. Without it they
    speak plain HTTP. Read anew, with its key, when one of the files changes."""
    tls_keyfile: Path | None = None
    """PEM: the certificate's private key."""
    tls_keyfile_password: SecretStr | None = None
    """Opens the private key where it is encrypted."""

    otlp_endpoint: str | None = None
    """OTLP/HTTP collector of traces, metrics and logs, such as ``http://localhost:4318``. Without it the
    SDK's own ``OTEL_EXPORTER_OTLP_ENDPOINT`` counts; without both, metrics are at ``/metrics`` alone."""

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        return _listed(self.http_allowed_hosts)

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        return _listed(self.http_allowed_origins)


class ServiceSettings(HttpSettings, KafkaSettings):
    """Settings shared by all services; each service subclasses it once, as ``Settings``."""

    session_timeout_ms: int = Field(default=10_000, ge=6_000)
    """A dead worker's partitions move after this long."""
    instance: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,100}$")
    """This process's own name among its replicas. Started again under it, the process has its partitions at
    once (KIP-345)."""

    store_url: str = "file://var/store"
    """Object store: ``file://``, ``s3://``, ``gs://``, ``az://`` or ``memory://``."""
    cache_dir: Path = Field(default_factory=lambda: user_cache_path("tunewheel"))
    """What can be fetched or made again: base models, fetched artifacts."""
    work_dir: Path | None = None
    """Files of running jobs; ``<cache_dir>/work`` by default."""

    log_json: bool = True
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    publish_seconds: float = Field(default=10.0, gt=0)
    """How long a publish waits for the broker's acknowledgement; an HTTP request then answers 503."""
    broker_lost_seconds: float = Field(default=60.0, gt=0)
    """``/health/ready`` answers 503 once the broker has been silent for longer; until it answers again."""
    retry_attempts: int = Field(default=50, ge=1)
    """With these waits, 11 to 22 minutes: a broker or a store that is away for some minutes stops nobody."""
    retry_first_delay_seconds: float = Field(default=0.2, gt=0)
    retry_max_delay_seconds: float = Field(default=30.0, gt=0)
    dead_letter_limit: int = Field(default=500, ge=1)
    """More dead letters than this among the latest ``dead_letter_window`` messages of one project on one
    topic are told as an error, and at ``/health/ready``."""
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
        """The longest time from SIGTERM to the end, in which nothing is lost: requests in flight, handlers,
        the producer, and what a collector is still told."""
        return 2 * self.shutdown_seconds + self.publish_seconds + TELEMETRY_SECONDS

    def work_for(self, service: str) -> Path:
        """Return where ``service`` keeps the files of its running jobs."""
        return (self.work_dir or self.cache_dir / "work") / service

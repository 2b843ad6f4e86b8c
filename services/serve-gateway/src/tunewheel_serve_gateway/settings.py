"""Settings of the gateway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from tunewheel_contracts.formats.allowed_sources import DEFAULT_HOSTS, Hosts
from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """``TUNEWHEEL_*`` variables that only the gateway reads; the rest is in ``ServiceSettings``."""

    engine_url: str = "http://127.0.0.1:8110"
    """Where the inference engines (vLLM, TGI or ``tunewheel-engine``) listen: addresses, separated by
    commas. ``dns+http://name:port`` stands for every address of the name, which is asked for again and
    again: a headless Service, say."""
    engine_protocol: Literal["openai", "tgi"] = "openai"
    engine_api_key: SecretStr | None = None
    """What the engine knows the gateway by; sent with every call to it."""
    engine_cafile: Path | None = None
    """PEM file of the authority behind an engine's ``https``, beside those of the system."""
    engine_connect_seconds: float = Field(default=3.0, gt=0)
    engine_first_byte_seconds: float | None = Field(default=None, gt=0)
    """Longest silence before the first text, and of an answer that is not streamed: the engine's queue, and
    reading the prompt. Default: ``engine_timeout_seconds``."""
    engine_timeout_seconds: float = Field(default=300.0, gt=0)
    """Longest silence of the engine between two tokens."""
    engine_control_seconds: float = Field(default=10.0, gt=0)
    """For the engine to list its models, or to unload one."""
    engine_breaker_failures: int = Field(default=5, ge=1)
    """So many failures in a row (no connection, silence, 5xx where another engine answers), and no more is
    asked of an engine."""
    engine_breaker_seconds: float = Field(default=5.0, gt=0)
    """After that long it is tried with one request, unless its models could be listed before."""
    engine_chat_template: Path | None = None
    """Jinja file that turns messages into a prompt; for ``tgi``, which takes prompts. Default: ChatML."""

    adapter_dir: Path | None = None
    """Where adapters are laid for the engine, as both see it; default ``<cache_dir>/adapters``."""
    reconcile_seconds: float = Field(default=5.0, gt=0)
    """Each engine's adapters are compared with what is desired this often, and on every change. Names are
    asked for their addresses as often."""
    on_demand_adapters: int = Field(default=4, ge=0)
    """Versions that no route names and that stay loaded because somebody asked for them by their id."""

    max_body_bytes: int = Field(default=1 << 20, gt=0)
    max_output_tokens: int = Field(default=4096, ge=1)
    """Most tokens that a client may ask for, unless the project's own ``max_output_tokens`` is larger."""
    max_input_tokens: int | None = Field(default=None, ge=1)
    """Longest prompt that is taken, by an estimate of one token for three bytes of the request."""
    retry_after_seconds: int = Field(default=2, ge=1)
    heartbeat_seconds: float = Field(default=15.0, ge=0)
    """A stream in which nothing was said for so long is sent a comment; 0: never."""

    limit_requests_per_minute: int | None = Field(default=None, ge=1)
    """Of every caller beside whose key the file of keys has no limit of its own; None: no limit."""
    limit_tokens_per_minute: int | None = Field(default=None, ge=1)
    limit_tokens_per_day: int | None = Field(default=None, ge=1)
    limit_tokens_per_month: int | None = Field(default=None, ge=1)
    limits_url: SecretStr | None = None
    """Redis, which counts for all gateways: ``redis://`` or ``rediss://``. None: each counts by itself."""
    limits_timeout_seconds: float = Field(default=0.05, gt=0)
    """Longest wait for Redis; then it is away."""
    limits_when_away: Literal["share", "refuse"] = "share"
    """While Redis is away: each gateway grants its share, or nobody is admitted who has a limit."""
    limits_replicas: int = Field(default=1, ge=1)
    """Gateways that share a limit where no Redis counts for them."""

    completion_log_bytes: int = Field(default=1 << 30, ge=1)
    """Completions that may wait for the broker on this gateway's disk; beyond it the newest are dropped."""
    completion_secret: SecretStr | None = Field(default=None, min_length=16)
    """Signs the ids of completions and keys the hashes of texts that are logged ``hashed``; the same for all
    gateways of an installation."""
    completion_batch: int = Field(default=500, ge=1)
    completion_linger_seconds: float = Field(default=0.02, ge=0)
    """A batch is published this long after its first completion, at the latest."""
    recent_completions: int = Field(default=10_000, ge=0)
    """Completions that feedback is joined with from memory; others are looked for on the log."""
    recent_completion_bytes: int = Field(default=64 << 20, ge=0)

    spec_hosts: Hosts = DEFAULT_HOSTS
    """The hosts that specs may have the gateway ask for embeddings of questions, and the variable whose key a
    host may get: ``embeddings.example=TUNEWHEEL_EMBEDDING_KEY``. The same setting as curate's."""
    vector_seconds: float = Field(default=1.0, gt=0)
    """Longest wait for the vector of a question from an endpoint; then the index is searched by words."""

    shadow_concurrency: int = Field(default=2, ge=1)
    shadow_backlog: int = Field(default=64, ge=0)
    """Shadow copies that may wait; beyond it the newest are dropped, and counted."""

    @field_validator("limits_url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("redis://", "rediss://")):
            raise ValueError("must begin with redis:// or rediss://")
        return url

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values: Any) -> Any:
        for old in ("completion_queue", "completion_queue_bytes"):
            if old in values or f"TUNEWHEEL_{old.upper()}" in os.environ:
                raise ValueError(
                    f"TUNEWHEEL_{old.upper()} is no setting any more: the disk is the queue, and "
                    "TUNEWHEEL_COMPLETION_LOG_BYTES bounds it; set that, or nothing"
                )
        return values

    @field_validator("engine_url")
    @classmethod
    def _are_engines(cls, text: str) -> str:
        urls = addresses(text)
        names = [url for url in urls if url.startswith("dns+")]
        if not urls or not all(url.startswith(("http://", "https://")) for url in set(urls) - set(names)):
            raise ValueError("must be addresses such as http://10.0.0.1:8110, separated by commas")
        if any(url.startswith("dns+https") for url in urls):
            raise ValueError(
                "finds engines by their addresses (dns+), which no certificate bears; list each engine by "
                "its name, or use dns+http"
            )
        if any("@" in urlsplit(url).netloc for url in urls):
            raise ValueError(
                "holds a name or password, which logs and metrics would tell; "
                "give the key in TUNEWHEEL_ENGINE_API_KEY"
            )
        if wrong := [name for name in names if not _is_name(name.removeprefix("dns+"))]:
            raise ValueError(f"{wrong[0]!r} is no name of engines; write dns+http://name:port")
        if len(set(urls)) < len(urls):
            raise ValueError("names an engine twice; keep one")
        return text

    @property
    def engine_urls(self) -> tuple[str, ...]:
        return addresses(self.engine_url)

    @property
    def adapter_root(self) -> Path:
        return (self.adapter_dir or self.cache_dir / "adapters").resolve()


def _is_name(url: str) -> bool:
    """Tell whether a name server can be asked for the host of ``url``."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
        return parts.scheme == "http" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a UnicodeError is one
        return False


def addresses(text: str) -> tuple[str, ...]:
    return tuple(url.rstrip("/") for part in text.split(",") if (url := part.strip()))

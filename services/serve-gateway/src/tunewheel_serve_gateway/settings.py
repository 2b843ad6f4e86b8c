"""Settings of the gateway."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from tunewheel_contracts.formats.allowed_sources import DEFAULT_HOSTS, Hosts
from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """``TUNEWHEEL_*`` variables that only the gateway reads; the rest is in ``ServiceSettings``."""

    engine_url: str = "http://127.0.0.1:8110"
    """URLs of the inference engines (vLLM, TGI or ``tunewheel-engine``), separated by commas.
    ``dns+http://name:port`` stands for one engine at each address of the name, such as a headless Service.
    The name is resolved again every ``reconcile_seconds``."""
    engine_protocol: Literal["openai", "tgi"] = "openai"
    engine_api_key: SecretStr | None = None
    """The API key that the gateway sends with every call to an engine."""
    engine_cafile: Path | None = None
    """PEM file of a certificate authority that engines' ``https`` certificates may be signed by, in addition
    to the system's authorities."""
    engine_connect_seconds: float = Field(default=3.0, gt=0)
    engine_first_byte_seconds: float | None = Field(default=None, gt=0)
    """Longest wait for the first text of a stream, or for a whole answer that is not streamed. The wait
    covers the engine's queue and the prefill. Default: ``engine_timeout_seconds``."""
    engine_timeout_seconds: float = Field(default=300.0, gt=0)
    """Longest silence of the engine between two tokens."""
    engine_control_seconds: float = Field(default=10.0, gt=0)
    """Longest wait for an engine to list its models, or to unload one."""
    engine_breaker_failures: int = Field(default=5, ge=1)
    """After this many failures in a row an engine gets no more requests. No connection, a timeout, or a 5xx
    for a request that another engine answers is a failure."""
    engine_breaker_seconds: float = Field(default=5.0, gt=0)
    """Seconds until such an engine gets one trial request. It is used again earlier if it lists its
    models."""
    engine_chat_template: Path | None = None
    """Jinja file of the base model's chat template. Only for the protocol ``tgi``, which takes a prompt in
    place of messages. Default: ChatML."""

    adapter_dir: Path | None = None
    """Directory into which adapters are downloaded for the engines. Gateway and engines must see it under the
    same path. Default: ``<cache_dir>/adapters``."""
    reconcile_seconds: float = Field(default=5.0, gt=0)
    """Seconds between two comparisons of an engine's adapters with the desired state; every change of the
    desired state causes one too. Names of engines are resolved at the same interval."""
    on_demand_adapters: int = Field(default=4, ge=0)
    """How many model versions without a route stay loaded after a client asked for them by id."""

    dropped_fields: str = ""
    """Names of fields, separated by commas, that are left out of requests in place of being refused as
    unknown."""
    max_body_bytes: int = Field(default=1 << 20, gt=0)
    max_output_tokens: int = Field(default=4096, ge=1)
    """Most output tokens that a client may ask for. The project's ``max_output_tokens`` counts where it is
    larger."""
    max_logprobs: int = Field(default=100_000, ge=1)
    """Most log-probabilities in one answer: ``n * max_tokens * (top_logprobs + 1)``."""
    max_in_flight: int = Field(default=1000, ge=1)
    """Most requests that are answered at the same time. A third of the process's file descriptors is the
    limit where that is less."""
    max_in_flight_bytes: int = Field(default=64 << 20, ge=1)
    """Most bytes of the bodies of these requests, and of log-probabilities in answers that are not
    streamed."""
    max_in_flight_share: float = Field(default=0.5, gt=0, le=1)
    """Share of both limits that one caller may take."""
    max_input_tokens: int | None = Field(default=None, ge=1)
    """Longest prompt that is accepted. Its length is estimated as one token per three bytes of the
    request."""
    retry_after_seconds: int = Field(default=2, ge=1)
    heartbeat_seconds: float = Field(default=15.0, ge=0)
    """Seconds of silence in a stream after which the client is sent a comment; 0: never."""

    limit_requests_per_minute: int | None = Field(default=None, ge=1)
    """Limit of each caller for whom the file of keys sets no limit; None: no limit. The same holds for the
    three settings that follow."""
    limit_tokens_per_minute: int | None = Field(default=None, ge=1)
    limit_tokens_per_day: int | None = Field(default=None, ge=1)
    limit_tokens_per_month: int | None = Field(default=None, ge=1)
    limits_url: SecretStr | None = None
    """Redis URL (``redis://`` or ``rediss://``); Redis counts for all gateways together. None: each gateway
    counts by itself."""
    limits_timeout_seconds: float = Field(default=0.05, gt=0)
    """Longest wait for Redis; after that Redis is treated as unavailable."""
    limits_when_away: Literal["share", "refuse"] = "share"
    """What happens while Redis is unavailable. ``share``: each gateway admits up to its share of a limit.
    ``refuse``: callers with a limit are refused."""
    limits_replicas: int = Field(default=1, ge=1)
    """Number of gateways that share a limit where no Redis counts for them."""

    completion_log_bytes: int = Field(default=1 << 30, ge=1)
    """Most bytes of completions that wait for the broker on this gateway's disk. When the limit is reached,
    new completions are dropped."""
    completion_secret: SecretStr | None = Field(default=None, min_length=16)
    """Secret that signs the ids of completions, and the key of the hashes of texts that are logged
    ``hashed``. It must be the same for all gateways of an installation."""
    completion_batch: int = Field(default=500, ge=1)
    completion_linger_seconds: float = Field(default=0.02, ge=0)
    """A batch is published this long after its first completion, at the latest."""
    confidence_share: float = Field(default=0.05, ge=0, le=1)
    """Share of production's requests for which the engine is asked for log-probabilities. The client does not
    get them; the completion log keeps the confidence of the answer in a few figures."""
    recent_completions: int = Field(default=10_000, ge=0)
    """Number of completions kept in memory, to be joined with feedback. Older ones are searched on the
    log."""
    recent_completion_bytes: int = Field(default=64 << 20, ge=0)

    spec_hosts: Hosts = DEFAULT_HOSTS
    """The hosts that a project's spec may name as endpoint of embeddings. ``host=VARIABLE`` also names the
    environment variable whose API key is sent to the host:
    ``embeddings.example=TUNEWHEEL_EMBEDDING_KEY``. Curate has the same setting."""
    vector_seconds: float = Field(default=1.0, gt=0)
    """Longest wait for an endpoint to embed a question; after that the index is searched by words alone."""

    shadow_concurrency: int = Field(default=8, ge=1)
    """Most shadow copies that are answered at the same time. With few, clients' requests take the engine, and
    a shadow stage takes longer."""
    shadow_backlog: int = Field(default=64, ge=0)
    """Most shadow copies that wait. When the limit is reached, new copies are dropped and counted."""
    shadow_backlog_bytes: int = Field(default=64 << 20, ge=0)
    """Most memory of the shadow copies that run and wait: their requests and the answers to them."""

    @field_validator("limits_url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("redis://", "rediss://")):
            raise ValueError("must begin with redis:// or rediss://")
        return url

    @field_validator("engine_api_key")
    @classmethod
    def _fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"[!-~]*", key.get_secret_value()):
            raise ValueError("must be visible ASCII characters, without spaces or a line break at its end")
        return key

    @field_validator("engine_url")
    @classmethod
    def _are_engines(cls, text: str) -> str:
        urls = addresses(text)
        names = [url for url in urls if url.startswith("dns+")]
        if not urls or not all(url.startswith(("http://", "https://")) for url in set(urls) - set(names)):
            raise ValueError("must be addresses such as http://10.0.0.1:8110, separated by commas")
        if any(url.startswith("dns+https") for url in urls):
            raise ValueError(
                "finds engines by address (dns+), but certificates are issued for names; list each engine by "
                "its name, or use dns+http"
            )
        if any("@" in urlsplit(url).netloc for url in urls):
            raise ValueError(
                "holds a name or password, which logs and metrics would show; "
                "set the key in TUNEWHEEL_ENGINE_API_KEY"
            )
        if wrong := [name for name in names if not _is_name(name.removeprefix("dns+"))]:
            raise ValueError(f"{wrong[0]!r} cannot be resolved as a name; write dns+http://name:port")
        if len(set(urls)) < len(urls):
            raise ValueError("names an engine twice; keep one")
        return text

    @field_validator("dropped_fields")
    @classmethod
    def _change_nothing(cls, text: str) -> str:
        from tunewheel_serve_gateway.chat_body import NOT_SERVED, WITHOUT_EFFECT, ChatBody
        from tunewheel_serve_gateway.responses_body import NotServed, ResponsesBody

        served = {*ChatBody.__annotations__, *ResponsesBody.__annotations__}
        served -= {*NOT_SERVED, *NotServed.__annotations__, *WITHOUT_EFFECT}
        served |= {"prompt", "user", "safety_identifier"}  # An erasure finds completions by the user.
        for name in addresses(text):
            if name in served or not re.fullmatch(r"[\w.-]{1,100}", name, re.ASCII):
                raise ValueError(
                    f"names fields that the gateway does not serve, separated by commas; not {name!r}"
                )
        return text

    @cached_property
    def dropped(self) -> frozenset[str]:
        """The names of ``dropped_fields``."""
        return frozenset(addresses(self.dropped_fields))

    @property
    def engine_urls(self) -> tuple[str, ...]:
        return addresses(self.engine_url)

    @property
    def adapter_root(self) -> Path:
        return (self.adapter_dir or self.cache_dir / "adapters").resolve()


def _is_name(url: str) -> bool:
    """Return whether the host of ``url`` has the form of a name that can be resolved."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
        return parts.scheme == "http" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # includes UnicodeError
        return False


def addresses(text: str) -> tuple[str, ...]:
    return tuple(url.rstrip("/") for part in text.split(",") if (url := part.strip()))

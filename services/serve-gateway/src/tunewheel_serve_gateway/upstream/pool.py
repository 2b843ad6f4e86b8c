"""The engines behind the gateway: which are healthy, which have a model, and which of them is asked next.

The next request goes to one of the healthy engines that have the model; ``balancing`` says to which.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import structlog
from tunewheel_runtime.tls import trust

from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream.balancing import pick
from tunewheel_serve_gateway.upstream.bases import have_one_base, of_base
from tunewheel_serve_gateway.upstream.breaker import Breaker
from tunewheel_serve_gateway.upstream.endpoint import Endpoint
from tunewheel_serve_gateway.upstream.openai import OpenAiUpstream
from tunewheel_serve_gateway.upstream.protocol import (
    KeyRefused,
    ModelNotLoaded,
    Timeouts,
    Upstream,
    UpstreamAway,
    UpstreamError,
    UpstreamRefused,
)

log = structlog.get_logger(__name__)
BY_NAME = "dns+"
"""Prefix of a URL whose host is to be resolved; Thanos has the same notation."""


class Pool:
    """``changed`` is called when an engine's health or its ready models changed, ``lost`` with the engine
    that does not know a model any more, and that model. ``make`` returns an engine at an address of one of
    the ``names``, which are URLs such as ``dns+http://vllm:8000``."""

    make: Callable[[str], Endpoint]
    names: Sequence[str] = ()

    def __init__(self, endpoints: Sequence[Endpoint], metrics: Metrics, *, retry_after: int = 2) -> None:
        self.endpoints = tuple(endpoints)
        self.changed: Callable[[], None] = lambda: None
        self.lost: Callable[[Endpoint, str], None] = lambda _, __: None
        self._metrics = metrics
        self._retry_after = str(retry_after)

    async def close(self) -> None:
        for endpoint in self.endpoints:
            await endpoint.client.close()

    def change(self, came: Collection[Endpoint], gone: Collection[Endpoint]) -> None:
        """Let engines come and go. A request that one of the latter is answering goes on."""
        self.endpoints = (*(e for e in self.endpoints if e not in gone), *came)
        self.changed()

    def ready(self) -> set[str]:
        """Return the models that some healthy engine has. An engine that does not answer counts too where no
        other of its base does: clients are told that it is away, and no other model takes their requests."""
        up = self.up()
        found = {name for endpoint in up for name in endpoint.ready}
        for endpoint in self.endpoints:
            if endpoint.breaker.is_open and not any(have_one_base(endpoint, other) for other in up):
                found |= endpoint.ready
        return found

    def having(self, target: Target) -> list[Endpoint]:
        """Return the engines that have ``target``, healthy or not."""
        if target.adapter is not None:
            return [e for e in self.endpoints if target.model_id in e.ready]
        found = of_base(self.endpoints, target.upstream_model)
        return found or [e for e in self.endpoints if not e.identity.bases]

    def up_with(self, target: Target) -> Endpoint | None:
        """Return a healthy engine that has ``target``."""
        return next((e for e in self.having(target) if not e.breaker.is_open), None)

    def is_in_use(self, model_id: str) -> bool:
        """Tell whether any engine is answering with ``model_id``."""
        return any(model_id in endpoint.in_use for endpoint in self.endpoints)

    def unknown_of(self, target: Target) -> list[str]:
        """Name what the engines that have ``target`` do not say of what was judged."""
        engines = self.having(target) or self.endpoints
        return sorted({part for e in engines for part in e.unknown(target)}, reverse=True)

    def choose(self, target: Target, tried: Collection[Endpoint], beginning: bytes) -> Endpoint | None:
        """Return the engine to ask next for a prompt of this ``beginning``; see ``balancing``. Where none is
        up, one that could not be reached is tried: it may be back, and if not says so at once."""
        left = [e for e in self.having(target) if e not in tried]
        free = [e for e in left if e.breaker.allows()]
        free = free or [e for e in left if isinstance(e.last_failure, UpstreamAway)]
        return pick(free, beginning) if free else None

    def status(self) -> list[dict[str, Any]]:
        """Return how each engine is, as plain data."""
        return [
            {
                "url": endpoint.url,
                "up": not endpoint.breaker.is_open,
                "error": endpoint.trouble,
                "bases": sorted(endpoint.identity.bases),
                "models": sorted(endpoint.ready),
                "outstanding": endpoint.outstanding,
            }
            for endpoint in self.endpoints
        ]

    def why_none(self, target: Target) -> UpstreamError:
        """Return why nobody can be asked for ``target``."""
        having = self.having(target)
        if target.adapter is not None and not having:
            return ModelNotLoaded(f"no engine has {target.model_id}", param="model")
        if not having:
            reason = f"no engine serves the base {target.upstream_model}; start one, or try again shortly"
            return UpstreamAway(reason, retry_after=self._retry_after)
        failure = having[0].last_failure
        reason = failure.message if failure else "it was not asked yet; try again shortly"
        return UpstreamAway(f"no engine answers: {reason}", retry_after=self._retry_after)

    def note_listing(self, endpoint: Endpoint, error: UpstreamError | None) -> None:
        """Take over what a health check found: ``error`` None: the engine listed its models."""
        reason = None if error is None else str(error)
        endpoint.is_away = isinstance(error, UpstreamAway) and not isinstance(error, KeyRefused)
        if error is None:
            if endpoint.breaker.pass_check():
                self.changed()
        elif isinstance(error, UpstreamAway) or self._can_be_spared(endpoint, error):
            self.note_fault(endpoint, error)
        if reason == endpoint.error:
            return
        endpoint.error = reason
        if error is None:
            log.info("engine_reached", engine=endpoint.name)
        elif isinstance(error, KeyRefused):
            log.error("engine_refuses_key", engine=endpoint.name, reason=reason)
        else:
            log.warning("engine_away", engine=endpoint.name, reason=reason)

    def note_failure(
        self, endpoint: Endpoint, target: Target, error: UpstreamError, *, asked_at: float
    ) -> None:
        """Take over what a request that failed says of the engine. ``asked_at``: monotonic seconds; a
        request that was sent before the model was loaded again does not tell that the engine lacks it now."""
        if isinstance(error, UpstreamRefused):
            self.note_success(endpoint)
        elif isinstance(error, ModelNotLoaded):
            self.note_success(endpoint)
            if target.adapter is not None and endpoint.loaded_at.get(target.model_id, 0.0) <= asked_at:
                log.warning("engine_lost_adapter", engine=endpoint.name, model_id=target.model_id)
                endpoint.ready.discard(target.model_id)
                self.lost(endpoint, target.model_id)
        else:
            self.note_fault(endpoint, error)

    def note_fault(self, endpoint: Endpoint, error: UpstreamError) -> None:
        """Count ``error`` against the engine."""
        endpoint.last_failure = error
        if endpoint.breaker.fail():
            log.warning("engine_breaker_opened", engine=endpoint.name, reason=error.message)
            self._metrics.add("engine.breakers_opened", of=endpoint.name)
            self.changed()

    def count_retry(self, endpoint: Endpoint) -> None:
        self._metrics.add("engine.retries", of=endpoint.name)

    def note_success(self, endpoint: Endpoint) -> None:
        """Take note that the engine works: it answered, or refused a request for the client's fault."""
        if endpoint.breaker.succeed():
            self.changed()

    def _can_be_spared(self, endpoint: Endpoint, error: UpstreamError) -> bool:
        """Tell whether an engine that is silent or broken where it should list its models is taken for down:
        it may fail to answer this question alone, so the last of a base is not."""
        others = (e for e in self.up() if e is not endpoint)
        wrong = not isinstance(error, UpstreamRefused | ModelNotLoaded)
        return wrong and any(have_one_base(endpoint, other) for other in others)

    def up(self) -> list[Endpoint]:
        """Return the engines whose circuit breaker is closed."""
        return [endpoint for endpoint in self.endpoints if not endpoint.breaker.is_open]


def make_pool(settings: Settings, is_adapter: Callable[[str], bool], metrics: Metrics) -> Pool:
    """Return the pool of the engines that ``engine_url`` lists. ``is_adapter`` says by a model's name whether
    it is an adapter or a base model. Raises InvalidTls, InvalidTemplate: see ``make_client``."""

    def make(url: str) -> Endpoint:
        breaker = Breaker(failures=settings.engine_breaker_failures, seconds=settings.engine_breaker_seconds)
        return Endpoint(url, make_client(settings, url, is_adapter), breaker, was_found=url not in listed)

    listed = [url for url in settings.engine_urls if not url.startswith(BY_NAME)]
    pool = Pool([make(url) for url in listed], metrics, retry_after=settings.retry_after_seconds)
    metrics.gauge("engines", "Engines of the pool", lambda: len(pool.endpoints))
    metrics.gauge("engines.up", "Engines whose circuit breaker is closed", lambda: len(pool.up()))
    pool.make, pool.names = make, [url for url in settings.engine_urls if url.startswith(BY_NAME)]
    for name in pool.names:
        make_client(settings, name.removeprefix(BY_NAME), is_adapter)  # raises now if the settings are wrong
    return pool


def make_client(settings: Settings, url: str, is_adapter: Callable[[str], bool]) -> Upstream:
    """Return the client of one engine, in the protocol that ``engine_protocol`` names.

    Raises:
        InvalidTls: ``engine_cafile`` cannot be used.
        InvalidTemplate: ``engine_chat_template`` cannot be used.
    """
    secret = settings.engine_api_key
    api_key = secret.get_secret_value() if secret else None
    cafile = settings.engine_cafile
    tls = None if cafile is None else trust(cafile, setting="TUNEWHEEL_ENGINE_CAFILE")
    timeouts = Timeouts(
        connect=settings.engine_connect_seconds,
        first_byte=settings.engine_first_byte_seconds or settings.engine_timeout_seconds,
        between_tokens=settings.engine_timeout_seconds,
        control=settings.engine_control_seconds,
    )
    if settings.engine_protocol == "openai":
        return OpenAiUpstream(
            url, api_key=api_key, tls=tls, timeouts=timeouts, retry_after=settings.retry_after_seconds
        )
    from tunewheel_serve_gateway.upstream.tgi import TgiUpstream, load_template

    return TgiUpstream(
        url,
        render=load_template(settings.engine_chat_template),
        is_adapter=is_adapter,
        api_key=api_key,
        tls=tls,
        timeouts=timeouts,
        retry_after=settings.retry_after_seconds,
    )

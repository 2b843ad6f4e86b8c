"""Builds the pool of engines from the settings."""

from __future__ import annotations

from collections.abc import Callable

from tunewheel_runtime.tls import trust

from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream.breaker import Breaker
from tunewheel_serve_gateway.upstream.chat_template import load_template
from tunewheel_serve_gateway.upstream.discovery import BY_NAME, Discovery
from tunewheel_serve_gateway.upstream.endpoint import Endpoint
from tunewheel_serve_gateway.upstream.openai import OpenAiUpstream
from tunewheel_serve_gateway.upstream.pool import Pool
from tunewheel_serve_gateway.upstream.protocol import Timeouts, Upstream


def make_pool(
    settings: Settings, is_adapter: Callable[[str], bool], metrics: Metrics
) -> tuple[Pool, Discovery]:
    """Return the pool of the engines that ``engine_url`` lists, and the discovery of engines behind its
    names. ``is_adapter`` says by a model's name whether it is an adapter or a base model.

    Raises:
        InvalidTls, InvalidTemplate: see ``make_client``.
    """

    def make(url: str) -> Endpoint:
        breaker = Breaker(failures=settings.engine_breaker_failures, seconds=settings.engine_breaker_seconds)
        return Endpoint(url, make_client(settings, url, is_adapter), breaker, was_found=url not in listed)

    listed = [url for url in settings.engine_urls if not url.startswith(BY_NAME)]
    names = [url for url in settings.engine_urls if url.startswith(BY_NAME)]
    for name in names:
        make_client(settings, name.removeprefix(BY_NAME), is_adapter)  # raises now if the settings are wrong
    pool = Pool([make(url) for url in listed], metrics, retry_after=settings.retry_after_seconds)
    return pool, Discovery(names, make, listed=listed)


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
    from tunewheel_serve_gateway.upstream.tgi import TgiUpstream

    return TgiUpstream(
        url,
        render=load_template(settings.engine_chat_template),
        is_adapter=is_adapter,
        api_key=api_key,
        tls=tls,
        timeouts=timeouts,
        retry_after=settings.retry_after_seconds,
    )

"""The endpoints that answer questions of which a project's own model is not sure: those of
``serving.abstain.endpoint``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.allowed_sources import FALLBACK_FIELD, AllowedSources
from tunewheel_contracts.formats.confidence import FallbackSpec
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.deadletter import Warn

from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream.breaker import Breaker
from tunewheel_serve_gateway.upstream.endpoint import Endpoint
from tunewheel_serve_gateway.upstream.openai import OpenAiUpstream
from tunewheel_serve_gateway.upstream.pool import Pool
from tunewheel_serve_gateway.upstream.protocol import KeyRefused, Timeouts, UpstreamError


@dataclass
class Fallbacks:
    """``spec_of`` returns a project's present spec. ``warn`` shows in the health why an endpoint does not
    answer."""

    spec_of: Callable[[str], ProjectSpec | None]
    settings: Settings
    metrics: Metrics
    warn: Warn
    _pools: dict[str, tuple[FallbackSpec, Pool]] = field(default_factory=dict[str, tuple[FallbackSpec, Pool]])
    """By project: a pool of its endpoint alone. That of an earlier spec closes its connections when they have
    been idle for long."""

    async def close(self) -> None:
        for _, pool in self._pools.values():
            await pool.close()

    def of(self, target: Target, asked_for: str) -> tuple[Pool, Target] | None:
        """Return who answers what ``target`` is not sure of, to a request for the model ``asked_for``. None:
        the project names no endpoint, or one that must not be asked here, or the client asked for exactly
        this model."""
        endpoint = self._endpoint(target.project)
        if endpoint is None or asked_for != target.project:
            return None
        try:
            pool = self._pool(target.project, endpoint)
        except InvalidSpec as error:
            self.warn(f"fallback {target.project}", str(error))
            return None
        return pool, Target(
            project=target.project,
            model_id=endpoint.model,
            upstream_model=endpoint.model,
            system_prompt=target.system_prompt,
            max_output_tokens=target.max_output_tokens,
            response_format=target.response_format,
            pinned=True,
            is_fallback=True,
        )

    def patience(self, project: str) -> float:
        """Return the longest time for a connection and the whole answer, or the beginning of a streamed one,
        in seconds. The connection's own time-outs, which count against the endpoint, end earlier, but begin
        anew with each byte."""
        endpoint, connect = self._endpoint(project), self.settings.engine_connect_seconds
        return endpoint.timeout_seconds + connect if endpoint is not None else 0.0

    def note(self, project: str, error: UpstreamError | None) -> None:
        """Show in the health that the endpoint of ``project`` failed; ``error`` None: it answered."""
        endpoint = self._endpoint(project)
        if endpoint is None or error is None:
            self.warn(f"fallback {project}", None)
            return
        reason = f"it refuses the key in {endpoint.api_key_env}" if isinstance(error, KeyRefused) else None
        self.warn(f"fallback {project}", f"{endpoint.base_url} did not answer: {reason or error.message}")

    def _endpoint(self, project: str) -> FallbackSpec | None:
        spec = self.spec_of(project)
        return (
            spec.serving.abstain.endpoint if spec is not None and spec.serving.abstain is not None else None
        )

    def _pool(self, project: str, spec: FallbackSpec) -> Pool:
        """Raises InvalidSpec: the operator did not list the host or the key, or the key is not set."""
        AllowedSources(hosts=self.settings.spec_hosts).check_fallback(spec)
        known = self._pools.get(project)
        if known is None or known[0] != spec:
            key = os.environ.get(spec.api_key_env) if spec.api_key_env else None
            if spec.api_key_env and not key:
                reason = f"names {spec.api_key_env}, which is not set where the gateway runs; set it"
                raise InvalidSpec(field=f"{FALLBACK_FIELD}.api_key_env", reason=reason)
            longest = spec.timeout_seconds
            connect = min(self.settings.engine_connect_seconds, longest)
            client = OpenAiUpstream(
                spec.base_url.rstrip("/"), chats="/chat/completions", api_key=key,
                timeouts=Timeouts(connect=connect, first_byte=longest, between_tokens=longest),
            )  # fmt: skip
            pool = Pool([Endpoint(spec.base_url, client, Breaker())], self.metrics)
            known = self._pools[project] = spec, pool
        return known[1]

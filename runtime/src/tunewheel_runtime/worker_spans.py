"""The span of a worker process, in the trace of the job that its parent carries out.

The parent hands the trace down in the environment, under the names that OpenTelemetry specifies for it
(``TRACEPARENT``, ``TRACESTATE``), or in the job. What a worker measures it tells its parent, which counts it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping

ENDPOINT = "TUNEWHEEL_OTLP_ENDPOINT"
_COLLECTORS = (ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def trace_environment() -> dict[str, str]:
    """Return the environment variables that hand the current trace down; empty outside any trace."""
    from tunewheel_runtime.telemetry import carried

    return {name.upper(): value for name, value in carried().items()}


@contextlib.contextmanager
def worker_span(service: str, name: str, trace: Mapping[str, str] | None = None) -> Generator[None]:
    """Tell of the body as a span ``name`` of ``service``, exported when it ends; a no-op without a collector.

    ``trace``: the headers of the trace to be in; None: as the environment says.
    """
    if not any(os.environ.get(variable) for variable in _COLLECTORS):
        yield
        return
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import StatusCode

    from tunewheel_runtime.telemetry import CARRIERS, extract, make_tracer_provider

    if trace is None:
        trace = {key: os.environ[key.upper()] for key in CARRIERS if key.upper() in os.environ}
    provider = make_tracer_provider(service, os.environ.get(ENDPOINT))
    context = extract({key: value.encode() for key, value in trace.items()})
    try:
        with provider.get_tracer("tunewheel").start_as_current_span(
            name, context=context, attributes={"process.pid": os.getpid()}, record_exception=False,
            set_status_on_exception=False,
        ) as span:  # fmt: skip
            try:
                yield
            except BaseException:
                span.set_status(StatusCode.ERROR)  # not in its words: they may hold what examples say
                raise
    finally:
        if isinstance(provider, TracerProvider):
            provider.shutdown()

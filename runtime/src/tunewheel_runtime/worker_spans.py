"""Creates the span of a worker process, in the trace of the job for which its parent started it.

The parent passes the trace context in the environment, under OpenTelemetry's names (``TRACEPARENT``,
``TRACESTATE``), or in the job. A worker exports no metrics; it reports its measurements to its parent.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping

ENDPOINT = "TUNEWHEEL_OTLP_ENDPOINT"
_COLLECTORS = (ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def trace_environment() -> dict[str, str]:
    """Return the environment variables with the current trace context; empty outside a trace."""
    from tunewheel_runtime.telemetry import carried

    return {name.upper(): value for name, value in carried().items()}


@contextlib.contextmanager
def worker_span(service: str, name: str, trace: Mapping[str, str] | None = None) -> Generator[None]:
    """Create a span ``name`` of ``service`` for the ``with`` block, and export it at its end. Does nothing
    without a collector.

    ``trace``: the headers of the trace to join; None: those in the environment.
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
                span.set_status(StatusCode.ERROR)  # Without the message, which may quote examples.
                raise
    finally:
        if isinstance(provider, TracerProvider):
            provider.shutdown()

"""What Prometheus can read, under vLLM's names, so that one dashboard fits both engines."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one engine, labelled with the model's name."""

    def __init__(
        self, *, running: Callable[[], float], waiting: Callable[[], float], loaded: Callable[[], float]
    ):
        self._registry = CollectorRegistry()
        self._gauge("vllm:num_requests_running", "Requests in the batch.", running)
        self._gauge("vllm:num_requests_waiting", "Requests waiting for a place in the batch.", waiting)
        self._gauge("tunewheel:engine_adapters_loaded", "Adapters that requests can name.", loaded)
        label = {"labelnames": ["model_name"], "registry": self._registry}
        self._prompt = Counter("vllm:prompt_tokens", "Prompt tokens of finished requests.", **label)
        self._generated = Counter("vllm:generation_tokens", "Generated tokens.", **label)
        self._finished = Counter(
            "vllm:request_success",
            "Finished requests by reason.",
            ["model_name", "finished_reason"],
            registry=self._registry,
        )
        self._cancelled = Counter("tunewheel:engine_cancelled", "Requests whose client left.", **label)
        self._refused = Counter(
            "tunewheel:engine_refused", "Requests refused, by status.", ["status"], registry=self._registry
        )
        self._first = Histogram(
            "vllm:time_to_first_token_seconds", "From arrival to first token.", buckets=_SECONDS, **label
        )
        self._whole = Histogram(
            "vllm:e2e_request_latency_seconds", "From arrival to last token.", buckets=_SECONDS, **label
        )

    def _gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        Gauge(name, help_text, registry=self._registry).set_function(value)

    def first_token(self, model: str, *, seconds: float) -> None:
        self._first.labels(model).observe(seconds)

    def finished(self, model: str, reason: str, *, prompt: int, generated: int, seconds: float) -> None:
        self._prompt.labels(model).inc(prompt)
        self._generated.labels(model).inc(generated)
        self._finished.labels(model, reason).inc()
        self._whole.labels(model).observe(seconds)

    def cancelled(self, model: str, *, generated: int) -> None:
        self._generated.labels(model).inc(generated)
        self._cancelled.labels(model).inc()

    def refused(self, status: int) -> None:
        self._refused.labels(str(status)).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

"""The engine's metrics. They are exported to a collector and served at ``GET /metrics``.

Metrics that vLLM has too are named as in vLLM, so that one dashboard fits both engines.
``runtime.prometheus`` writes the prefix ``vllm.`` as vLLM does.
"""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.metrics import Meter
from tunewheel_runtime.metrics import ANSWER_SECONDS, gauge


class Metrics:
    """The metrics of one engine. Most have a label for the model that a request named."""

    def __init__(
        self,
        meter: Meter,
        *,
        running: Callable[[], float],
        waiting: Callable[[], float],
        loaded: Callable[[], float],
    ) -> None:
        gauge(meter, "vllm.num_requests_running", "Requests in the batch", running)
        gauge(meter, "vllm.num_requests_waiting", "Requests waiting for a place in the batch", waiting)
        gauge(meter, "tunewheel.engine.adapters_loaded", "Adapters that requests can name", loaded)
        count = meter.create_counter
        self._prompt = count("vllm.prompt_tokens", description="Prompt tokens of finished requests")
        self._generated = count("vllm.generation_tokens", description="Generated tokens")
        self._finished = count("vllm.request_success", description="Finished requests by reason")
        self._cancelled = count("tunewheel.engine.cancelled", description="Requests whose client left")
        self._refused = count("tunewheel.engine.refused", description="Requests refused, by status")
        bounds = list(ANSWER_SECONDS)
        self._first = meter.create_histogram(
            "vllm.time_to_first_token_seconds",
            "s",
            "From arrival to first token",
            explicit_bucket_boundaries_advisory=bounds,
        )
        self._whole = meter.create_histogram(
            "vllm.e2e_request_latency_seconds",
            "s",
            "From arrival to last token",
            explicit_bucket_boundaries_advisory=bounds,
        )

    def first_token(self, model: str, *, seconds: float) -> None:
        self._first.record(seconds, _of(model))

    def finished(self, model: str, reason: str, *, prompt: int, generated: int, seconds: float) -> None:
        self._prompt.add(prompt, _of(model))
        self._generated.add(generated, _of(model))
        self._finished.add(1, {**_of(model), "finished_reason": reason})
        self._whole.record(seconds, _of(model))

    def cancelled(self, model: str, *, generated: int) -> None:
        self._generated.add(generated, _of(model))
        self._cancelled.add(1, _of(model))

    def refused(self, status: int) -> None:
        self._refused.add(1, {"status": str(status)})


def _of(model: str) -> dict[str, str]:
    return {"model_name": model}

"""What the gateway counts, once for OpenTelemetry and once for ``GET /metrics``.

Counters, all prefixed ``tunewheel.gateway.``: see ``COUNTERS``. In the text format of Prometheus dots are
underscores and counters end in ``_total``. ``BY_ENGINE`` are told per engine, with the label ``engine``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from opentelemetry.metrics import Meter

COUNTERS: Mapping[str, str] = {
    "completions.answered": "Chat completions answered",
    "completions.failed": "Chat completions that the engine failed to answer",
    "completions.disconnected": "Chat completions whose client went away",
    "completions.refused": "Requests of known callers refused before they reached the engine",
    "limits.refused": "Requests refused by a limit or a budget of their caller",
    "limits.away": "Requests admitted or refused by this gateway alone, since Redis was away",
    "log.published": "inference.completed events acknowledged by the broker",
    "log.dropped": "inference.completed events dropped: the disk was full, or the event is not acceptable",
    "log.unspooled": "Answers sent before the disk had them, as it hung: a kill in that moment loses them",
    "log.recovered": "Completions that an earlier process answered and did not come to publish",
    "shadow.copied": "Requests copied to a shadow model",
    "shadow.dropped": "Shadow copies dropped: too many waited, or the engine was full or away",
    "feedback.received": "Feedback published",
    "adapters.loaded": "Adapters loaded into the engine",
    "adapters.failed": "Failed attempts to load an adapter",
    "adapters.unloaded": "Adapters unloaded from the engine",
}
BY_ENGINE: Mapping[str, str] = {
    "engine.retries": "Requests that this engine did not answer and that another was asked for",
    "engine.breakers_opened": "Times that this engine failed so often that no more was asked of it",
}


class Metrics:
    def __init__(self, meter: Meter) -> None:
        self._values = dict.fromkeys(COUNTERS, 0)
        self._counters = {
            name: meter.create_counter(f"tunewheel.gateway.{name}", description=text)
            for name, text in (*COUNTERS.items(), *BY_ENGINE.items())
        }
        self._by_engine: dict[str, Counter[str]] = {name: Counter() for name in BY_ENGINE}
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def add(self, name: str, amount: int = 1, *, engine: str | None = None) -> None:
        """Count; ``engine`` (host and port) for those in ``BY_ENGINE`` and for no other."""
        if engine is None:
            self._values[name] += amount
            self._counters[name].add(amount)
        else:
            self._by_engine[name][engine] += amount
            self._counters[name].add(amount, {"engine": engine})

    def value(self, name: str, *, engine: str | None = None) -> int:
        return self._values[name] if engine is None else self._by_engine[name][engine]

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Report ``read()`` under ``name`` whenever metrics are asked for."""
        self._gauges[name] = (text, read)

    def render(self) -> str:
        """Return everything in the Prometheus text exposition format 0.0.4."""
        lines: list[str] = []
        for name, value in self._values.items():
            metric = f"tunewheel_gateway_{name.replace('.', '_')}_total"
            lines += [f"# HELP {metric} {COUNTERS[name]}", f"# TYPE {metric} counter", f"{metric} {value}"]
        for name, counted in self._by_engine.items():
            metric = f"tunewheel_gateway_{name.replace('.', '_')}_total"
            lines += [f"# HELP {metric} {BY_ENGINE[name]}", f"# TYPE {metric} counter"]
            lines += [f'{metric}{{engine="{engine}"}} {value}' for engine, value in counted.items()]
        for name, (text, read) in self._gauges.items():
            metric = f"tunewheel_gateway_{name.replace('.', '_')}"
            lines += [f"# HELP {metric} {text}", f"# TYPE {metric} gauge", f"{metric} {read()}"]
        return "\n".join(lines) + "\n"

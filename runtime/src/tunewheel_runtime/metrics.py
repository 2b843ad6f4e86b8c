"""What a service counts, once for OpenTelemetry and once for ``GET /metrics``.

Names are prefixed ``tunewheel.<service>.``. In the text format of Prometheus dots are underscores and
counters end in ``_total``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from opentelemetry.metrics import Meter

Reading = Callable[[], float | Mapping[str, float]]


class Metrics:
    """Counters and gauges of one service.

    ``counters``: what each counts, by name. ``labels``: for those that are told apart, the label by which.
    """

    def __init__(
        self,
        meter: Meter,
        service: str,
        counters: Mapping[str, str],
        *,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._service = service
        self._texts = counters
        self._labels = labels or {}
        self._values: dict[str, Counter[str]] = {name: Counter() for name in counters}
        self._counters = {
            name: meter.create_counter(f"tunewheel.{service}.{name}", description=text)
            for name, text in counters.items()
        }
        self._gauges: dict[str, tuple[str, str, Reading]] = {}

    def add(self, name: str, amount: int = 1, *, of: str = "") -> None:
        """Count; ``of`` is the value of the counter's label, where it has one."""
        self._values[name][of] += amount
        self._counters[name].add(amount, {self._labels[name]: of} if of else {})

    def value(self, name: str, *, of: str = "") -> int:
        return self._values[name][of]

    def gauge(self, name: str, text: str, read: Reading, *, label: str = "") -> None:
        """Report ``read()`` under ``name`` whenever metrics are asked for; where there is a ``label``, by its
        values."""
        self._gauges[name] = (text, label, read)

    def render(self) -> str:
        """Return everything in the Prometheus text exposition format 0.0.4."""
        lines: list[str] = []
        for name, counted in self._values.items():
            label = self._labels.get(name, "")
            lines += self._told(
                f"{name}_total", "counter", self._texts[name], label, dict(counted) or {"": 0}
            )
        for name, (text, label, read) in self._gauges.items():
            found = read()
            figures = found if isinstance(found, Mapping) else {"": found}
            lines += self._told(name, "gauge", text, label, figures)
        return "\n".join(lines) + "\n"

    def _told(self, name: str, kind: str, text: str, label: str, figures: Mapping[str, float]) -> list[str]:
        metric = f"tunewheel_{self._service}_{name.replace('.', '_')}"
        head = [f"# HELP {metric} {text}", f"# TYPE {metric} {kind}"]
        if not label:
            return [*head, f"{metric} {figures['']}"]
        return head + [f'{metric}{{{label}="{of}"}} {value}' for of, value in figures.items() if of]

"""Metrics of a service by OpenTelemetry. They are exported to a collector and served at ``GET /metrics``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, Observation

Reading = Callable[[], float | Mapping[Any, float]]
"""A number, or a number for each value of a label (with several labels: for each tuple of values)."""

ANSWER_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
"""Bucket bounds, in seconds, of histograms of things that a user waits for."""
WORK_SECONDS = (0.005, 0.025, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3_600, 14_400, 86_400)
"""Bucket bounds, in seconds, of background work: from milliseconds of a handler to hours of a training."""


def gauge(meter: Meter, name: str, text: str, read: Reading, labels: Sequence[str] = ()) -> None:
    """Report ``read()`` as ``name`` whenever metrics are collected, with ``labels``."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return list(_observations(read(), labels))

    meter.create_observable_gauge(name, [observe], description=text)


def _observations(
    found: float | Mapping[Any, float],
    labels: Sequence[str],
) -> Iterator[Observation]:
    if not isinstance(found, Mapping):
        yield Observation(found)
        return
    for of, value in dict(found).items():
        values = (of,) if isinstance(of, str) else of
        yield Observation(value, dict(zip(labels, values, strict=True)))


class Metrics:
    """Counters, gauges and histograms of one service, with names below ``tunewheel.<service>.``.

    ``counters`` and ``seconds`` (histograms): descriptions by name. ``labels``: the label of each counter
    that has one.
    """

    def __init__(
        self,
        meter: Meter,
        service: str,
        counters: Mapping[str, str],
        *,
        labels: Mapping[str, str] | None = None,
        seconds: Mapping[str, str] | None = None,
        bounds: Sequence[float] = WORK_SECONDS,
    ) -> None:
        self._meter = meter
        self._prefix = f"tunewheel.{service}."
        self._labels = labels or {}
        # Counted here and read when metrics are collected: OpenTelemetry takes 30 times as long to add.
        # Prometheus sees no increase in a series that begins with 1, so those without a label begin with 0.
        self._values: dict[str, Counter[str]] = {
            name: Counter() if name in self._labels else Counter({"": 0}) for name in counters
        }
        for name, text in counters.items():
            meter.create_observable_counter(self._prefix + name, [self._reading(name)], description=text)
        self._seconds = {
            name: meter.create_histogram(
                self._prefix + name, "s", text, explicit_bucket_boundaries_advisory=list(bounds)
            )
            for name, text in (seconds or {}).items()
        }

    def _reading(self, name: str) -> Callable[[CallbackOptions], list[Observation]]:
        label, values = self._labels.get(name), self._values[name]

        def observe(_: CallbackOptions) -> list[Observation]:
            found = values.copy()  # Another thread may add meanwhile.
            return [Observation(value, {label: of} if label and of else {}) for of, value in found.items()]

        return observe

    def add(self, name: str, amount: int = 1, *, of: str = "") -> None:
        """Increase a counter. ``of``: the value of its label, if it has one."""
        self._values[name][of] += amount

    def value(self, name: str, *, of: str = "") -> int:
        return self._values[name][of]

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Add one duration to the histogram ``name``."""
        self._seconds[name].record(seconds, labels)

    def gauge(self, name: str, text: str, read: Reading, *, label: str | tuple[str, ...] = ()) -> None:
        """Report ``read()`` under ``name`` whenever metrics are collected, with its ``label`` or labels."""
        gauge(self._meter, self._prefix + name, text, read, (label,) if isinstance(label, str) else label)

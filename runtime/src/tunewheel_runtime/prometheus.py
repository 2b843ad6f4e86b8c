"""Writes OpenTelemetry's metrics in Prometheus' text exposition format 0.0.4.

Names are translated by OpenTelemetry's page "Prometheus and OpenMetrics Compatibility": characters that
Prometheus does not allow become underscores, and counters end in ``_total``. Every series has the label
``service``. Other attributes of the process are in ``target_info``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import accumulate

from opentelemetry.sdk.metrics.export import (
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    Sum,
)

CONTENT_TYPE = "text/plain; version=0.0.4"
PREFIX = "tunewheel-"
"""Prefix of ``service.name``, which the label ``service`` omits."""


def as_text(data: MetricsData | None) -> str:
    """Return ``data`` in the text format."""
    lines: list[str] = []
    for resource in data.resource_metrics if data is not None else ():
        attributes = resource.resource.attributes
        service = str(attributes.get("service.name", "")).removeprefix(PREFIX)
        lines += ["# HELP target_info The process", "# TYPE target_info gauge"]
        lines.append(_line("target_info", {**attributes, "service": service}, 1))
        for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
            lines += _metric(metric, {"service": service})
    return "\n".join(lines) + "\n"


def _metric(metric: Metric, common: Mapping[str, object]) -> Iterator[str]:
    data = metric.data
    counts = isinstance(data, Sum) and data.is_monotonic
    name = _name(metric.name) + ("_total" if counts else "")
    kind = "histogram" if isinstance(data, Histogram) else "counter" if counts else "gauge"
    yield f"# HELP {name} {_escaped(metric.description or metric.name)}"
    yield f"# TYPE {name} {kind}"
    if isinstance(data, Sum | Gauge | Histogram):
        for point in data.data_points:
            labels = {**common, **(point.attributes or {})}
            if isinstance(point, NumberDataPoint):
                yield _line(name, labels, point.value)
            else:
                yield from _histogram(name, labels, point)


def _histogram(name: str, labels: Mapping[str, object], point: HistogramDataPoint) -> Iterator[str]:
    bounds = [*(f"{bound:g}" for bound in point.explicit_bounds), "+Inf"]
    for bound, count in zip(bounds, accumulate(point.bucket_counts), strict=True):
        yield _line(f"{name}_bucket", {**labels, "le": bound}, count)
    yield _line(f"{name}_sum", labels, point.sum)
    yield _line(f"{name}_count", labels, point.count)


def _line(name: str, labels: Mapping[str, object], value: float) -> str:
    keys: dict[str, list[str]] = {}
    for key in labels:
        keys.setdefault(_name(key), []).append(key)
    # If several keys become the same label name, the label has the values of all of them.
    values = {label: ";".join(str(labels[key]) for key in sorted(of)) for label, of in keys.items()}
    text = ",".join(f'{label}="{_escaped(value, quoted=True)}"' for label, value in values.items())
    return f"{name}{{{text}}} {value}"


def _name(name: str) -> str:
    if name.startswith("vllm."):  # vLLM uses a colon, which OpenTelemetry does not allow in names.
        return f"vllm:{_name(name.removeprefix('vllm.'))}"
    found = re.sub("_+", "_", re.sub("[^a-zA-Z0-9_]", "_", name))
    return f"key_{found}" if found[:1].isdigit() else found


def _escaped(text: str, *, quoted: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quoted else text

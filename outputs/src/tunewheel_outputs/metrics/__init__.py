"""All metrics. Each module of this folder has one, called ``METRIC``. A new metric needs only a new file."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.lm_eval_metric import lm_eval_metric
from tunewheel_outputs.metric import Metric


@cache
def known_metrics() -> dict[str, Metric]:
    """Return every metric by its name, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found = [importlib.import_module(f"{__name__}.{name}").METRIC for name in names]
    return {metric.name: metric for metric in found}


def find_metric(name: str) -> Metric | None:
    """Return the metric of that name, from a file or a task of lm-eval; None: there is none."""
    return known_metrics().get(name) or lm_eval_metric(name)


def metrics_for(task: TaskSpec, asked_for: frozenset[str] = frozenset()) -> dict[str, Metric]:
    """Return the metrics that can be measured for ``task``. Metrics that need the corpus are included only if
    they are ``asked_for``."""
    return {
        name: metric
        for name, metric in known_metrics().items()
        if metric.lacks(task) is None and (not metric.needs_corpus or name in asked_for)
    }

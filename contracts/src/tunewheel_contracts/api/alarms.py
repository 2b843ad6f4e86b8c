"""Alarms: production differs from the training data."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.events.monitoring import DriftResolved
from tunewheel_contracts.events.turns import AlarmAnswer
from tunewheel_contracts.fields import Frozen, Timestamp


class AlarmSummary(Frozen):
    alarm_id: str
    project: str
    state: str
    """``open`` or ``resolved``."""
    detector: str
    """The detector's own name."""
    since: Timestamp
    resolved_at: Timestamp | None = None
    suggested_action: str | None = None
    keywords: tuple[str, ...] = ()
    """Words that are typical of the questions behind the alarm."""
    effect: float | None = None
    effect_unit: str | None = None
    statistic: float | None = None
    """None: the log does not keep the figures of the alarm any more."""
    statistic_name: str | None = None
    dataset_id: str | None = None
    """The dataset version that production differs from."""
    model_id: str | None = None
    answer: AlarmAnswer | None = None
    """Curate's decision about the open alarm."""


class AlarmDetail(AlarmSummary):
    p_value: float | None = None
    threshold: float | None = None
    reference: str | None = None
    """The reference that was compared with, in words."""
    window: dict[str, Any] | None = None
    """The completions that were examined: the first, the last, their number and their times."""
    prompts: int | None = None
    """The number of questions in the alarm's cluster."""
    completion_ids: tuple[str, ...] = ()
    """The completions of the cluster, most typical first."""
    evidence: str | None = None
    """The path of redacted texts in the object store."""
    resolved: DriftResolved | None = None
    labels: tuple[str, ...] = ()
    """The requests for labels that the alarm led to."""
    turns: tuple[str, ...] = ()
    """The turns that should resolve the alarm, oldest first."""

"""What counts as drift, and what follows from it."""

from __future__ import annotations

import operator
from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import Strict


class LabelsSpec(Strict):
    """Who answers the prompts that drifted, beside the people at the console."""

    webhook: Annotated[str | None, Field(max_length=512, exclude_if=operator.not_)] = None
    """URL that is told of every request for labels, by a signed CloudEvent. Curate's operator lists the hosts
    that it may name."""
    teacher_quota: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Answers a month, at most, that the teacher of ``dataset.formats.documents.questions.teacher`` is asked
    for. They are marked and trusted least: nobody validated them. 0: no teacher is asked."""


class DriftSpec(Strict):
    enabled: bool = True
    window: Annotated[int, Field(ge=10)] = 100
    """Completions per window."""
    p_value: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """A detector speaks where it finds a smaller one; where nothing changed, in that share of windows."""
    detectors: tuple[Literal["input", "format", "feedback"], ...] = ("input", "format", "feedback")
    cooldown_completions: Annotated[int, Field(ge=0)] = 100
    """One shift is one alarm: after a detection the same detector speaks again only once so many completions
    in a row (ratings, for ``feedback``), and at least three windows of them, showed no drift."""
    rebuild: bool = True
    """Build a new dataset version after drift, unless one is being built already."""
    labels: Annotated[LabelsSpec, Field(exclude_if=lambda spec: spec == LabelsSpec())] = LabelsSpec()

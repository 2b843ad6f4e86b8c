"""What counts as drift, and what follows from it."""

from __future__ import annotations

import operator
from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import NonNegative, PositiveInt, Strict

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Follows = Literal["collect_labels", "retrain", "investigate", "nothing"]
"""What an alarm leads to: a version once enough labels lie near it, one now, a person's look, nothing."""


class TurnBudget(Strict):
    """What training may cost in a calendar month (UTC) before no further version is built unasked. A person's
    command is never held up. An unset limit is none."""

    gpu_hours: Positive | None = None
    """Hours of runs on GPUs, as they were measured; as planned while they go on. Several GPUs of one run
    count once."""
    dollars: Positive | None = None
    """By the prices that the train service knows (``TUNEWHEEL_DEVICES``)."""


class TurnPolicy(Strict):
    """Which drift leads to what, and when. One turn is in flight at a time; alarms that come meanwhile wait
    for its end."""

    follow: dict[str, Follows] = {}
    """By a detector's own name (``novelty``), its family (``input``, ``format``, ``feedback``) or the action
    that the alarm suggests (``update_documents``); the first of the three that is listed counts. Where none
    is, what the alarm suggests. A person has to ``investigate`` what asks for documents, and for labels
    without telling where."""
    min_labels: PositiveInt = 20
    """Trusted examples near the cluster that a turn waits for; each further turn for the same alarm waits for
    so many more."""
    alarm_seconds: NonNegative = 0.0
    """An alarm must stay open so long before anything follows from it."""
    cooldown_seconds: NonNegative = 3600.0
    """No turn begins sooner after the end of the one before that drift began."""
    approval: bool = False
    """A turn that is due waits for a person, who begins it with `tunewheel build` or in the console."""
    budget: TurnBudget = TurnBudget()


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
    """What all detectors together may risk: the chance of a false alarm in ten windows in which nothing
    changed. An alarm's own p-value lies below its share of that."""
    detectors: tuple[Literal["input", "format", "feedback"], ...] = ("input", "format", "feedback")
    cooldown_completions: Annotated[int, Field(ge=0)] = 100
    """One shift is one alarm: after a detection the same detector speaks again only once so many completions
    in a row (ratings, for ``feedback``), and at least three windows of them, showed no drift."""
    rebuild: bool = True
    """Whether anything follows from an alarm; ``turns`` says what."""
    turns: Annotated[TurnPolicy, Field(exclude_if=lambda turns: turns == TurnPolicy())] = TurnPolicy()
    labels: Annotated[LabelsSpec, Field(exclude_if=lambda spec: spec == LabelsSpec())] = LabelsSpec()

"""Evaluations and their scorecards."""

from __future__ import annotations

from tunewheel_contracts.fields import Frozen, Timestamp
from tunewheel_contracts.formats.scorecard import CriterionCheck, Role, Scorecard


class EvaluationSummary(Frozen):
    evaluation_id: str
    """The run's id for an evaluation of an earlier release, which has no id of its own."""
    project: str
    run_id: str
    model_id: str
    dataset_id: str
    at: Timestamp
    """The time of the verdict, or of the request for a review."""
    outcome: str
    """``passed``, ``failed``, ``undecided``, ``review`` (people decide) or ``informs`` (gives no
    verdict)."""
    reasons: tuple[str, ...] = ()
    field: str | None = None
    """The field to correct if the candidate could not be measured."""
    against: str | None = None
    """The champion that the candidate was compared with."""
    reviewed_by: str | None = None
    withheld: bool = False
    """Whether the figures are withheld, because a review of the project's answers is open."""


class EvaluationDetail(EvaluationSummary):
    checks: tuple[CriterionCheck, ...] = ()
    scorecard: Scorecard | None = None
    """None: it is withheld."""
    informs: str | None = None
    """Why the scorecard gives no verdict; None: it gives one."""


class LabelCell(Frozen):
    """How many rows with the label ``expected`` a contestant answered with the label ``answered``."""

    expected: str
    answered: str | None
    """None: the answer has no label."""
    rows: int


class EvaluationLabels(Frozen):
    """The labels that the contestants answered with, as counted rows of the scorecard."""

    evaluation_id: str
    answers: dict[Role, tuple[LabelCell, ...]] = {}
    """By role of the contestant; in the order of labels. Empty: the rows have no labels, or an earlier
    release evaluated."""

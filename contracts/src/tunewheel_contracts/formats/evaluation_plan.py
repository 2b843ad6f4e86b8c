"""The plan of one evaluation: what is judged, and against which models. It is fixed before anything is
measured."""

from __future__ import annotations

import operator
from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import ArtifactRef, Fraction, Frozen, JsonObject, Sha256, Slug
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.formats.scorecard import Role

Precision = Literal["float32", "bfloat16"]


class Champion(Frozen):
    """The model in production when the evaluation was planned."""

    adapter: AdapterRef
    dataset_id: Slug | None = None
    constraint: Annotated[JsonObject | None, Field(exclude_if=lambda schema: schema is None)] = None
    """The JSON Schema by which its answers are constrained where it serves."""


class EvaluationPlan(Frozen):
    """``runs/<run_id>/evaluation.json`` for the first evaluation of a run;
    ``runs/<run_id>/evaluations/<evaluation_id>.json`` for later ones. Created once."""

    project: Slug
    run_id: Slug
    dataset_id: Slug
    dataset: ArtifactRef
    criteria_sha256: Sha256
    adapter: AdapterRef
    champion: Champion | None
    scorecard_id: Slug
    review_required: bool
    evaluation_id: Slug | None = None
    """Hash of run, champion, task, criteria, regression set, precision, method and, if there is one, the
    index version. Null: made by an earlier release."""
    criteria: tuple[Criterion, ...] = ()
    """Criteria other than those declared before the training. The scorecard then informs and gives no
    verdict."""
    regression: ArtifactRef | None = None
    """The general-regression set, JSON Lines; null: the set that comes with eval."""
    precision: Precision | None = None
    """Precision of the computation; null: eval's setting."""
    in_production: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """Whether the candidate was itself in production when a person asked. Then no other model replaces it."""
    index: Annotated[ArtifactRef | None, Field(exclude_if=operator.not_)] = None
    """Manifest of the index version from which passages are taken: the newest when the plan was made. None:
    the project has no retrieval or no index, so prompts have no passages."""
    index_id: Annotated[Slug | None, Field(exclude_if=operator.not_)] = None
    completes: Annotated[Slug | None, Field(exclude_if=operator.not_)] = None
    """An earlier evaluation of the same contestants by the same criteria, whose scorecard lacks the four
    cells. This evaluation measures the cells."""
    rows: Annotated[ArtifactRef | None, Field(exclude_if=operator.not_)] = None
    """Manifest of the dataset version whose held-out rows are used. Rows that the run or the champion trained
    on are left out. Null: the run's own version."""
    rows_id: Annotated[Slug | None, Field(exclude_if=operator.not_)] = None
    """The ``dataset_id`` of ``rows``. It is part of ``evaluation_id``."""
    spent: Annotated[Fraction, Field(exclude_if=operator.not_)] = 0
    """How much worse than the best champion so far the champion may be, as a share of questions
    (``serving.desired``). It makes margins against the champion smaller. Part of ``evaluation_id`` unless
    0."""

    reviewed: Annotated[Sha256 | None, Field(exclude_if=operator.not_)] = None
    """Hash of the pairs that people had compared when a later evaluation was asked for, if a criterion is on
    ``judged``: they measure the judge's error."""

    @property
    def informs(self) -> str | None:
        """Why the scorecard only informs and gives no verdict; None: it gives a verdict."""
        if self.criteria:
            return (
                "by criteria other than those declared before the training: this informs and decides nothing"
            )
        if self.in_production:
            return "of the model that is in production itself: this informs and decides nothing"
        if self.completes:
            return "for cells that an earlier scorecard lacks: this informs and decides nothing"
        return None

    @property
    def rows_of(self) -> str:
        """The ``dataset_id`` of the version whose held-out rows are used."""
        return self.rows_id or self.dataset_id

    @property
    def contestants(self) -> dict[Role, AdapterRef | None]:
        """The measured models, by role; None: the base model. The candidate comes first, so that a fault in
        its files is found at once."""
        found: dict[Role, AdapterRef | None] = {Role.CANDIDATE: self.adapter, Role.BASE: None}
        return found | ({Role.CHAMPION: self.champion.adapter} if self.champion else {})

    @property
    def scorecard_path(self) -> str:
        return f"scorecards/{self.scorecard_id}.json"

    @property
    def page_path(self) -> str:
        """Path of the scorecard as an HTML page."""
        return f"scorecards/{self.scorecard_id}.html"


class EvaluationRequest(Frozen):
    """The id of an evaluation. ``runs/<run_id>/requests/<event_id>.json``: the evaluation that an
    ``eval.requested`` led to. ``runs/<run_id>/successors/<evaluation_id>.json``: the evaluation that replaced
    one whose index version was deleted before it ended."""

    evaluation_id: Slug


def first_plan_path(run_id: str) -> str:
    """Return the path of the plan of a run's first evaluation."""
    return f"runs/{run_id}/evaluation.json"


def later_plan_path(run_id: str, evaluation_id: str) -> str:
    """Return the path of the plan of a later evaluation."""
    return f"runs/{run_id}/evaluations/{evaluation_id}.json"


def request_path(run_id: str, event_id: str) -> str:
    """Return the path at which eval records the evaluation that an ``eval.requested`` led to."""
    return f"runs/{run_id}/requests/{event_id}.json"


def successor_path(run_id: str, evaluation_id: str) -> str:
    """Return the path at which eval records the evaluation that replaced one whose index was deleted."""
    return f"runs/{run_id}/successors/{evaluation_id}.json"

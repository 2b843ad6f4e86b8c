"""What one evaluation judges, and against whom: fixed before anything is measured."""

from __future__ import annotations

import operator
from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import ArtifactRef, Frozen, Sha256, Slug
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.formats.scorecard import Role

Precision = Literal["float32", "bfloat16"]


class Champion(Frozen):
    """The model in production when the evaluation was planned."""

    adapter: AdapterRef
    dataset_id: Slug | None = None


class EvaluationPlan(Frozen):
    """``runs/<run_id>/evaluation.json`` for the first evaluation of a run, later ones at
    ``runs/<run_id>/evaluations/<evaluation_id>.json``. Created once."""

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
    """Named by run, champion, task, criteria, regression set, precision, method and, where there is one, the
    index version; None: of an earlier release."""
    criteria: tuple[Criterion, ...] = ()
    """Other criteria than those of before the training: the scorecard informs, and decides nothing."""
    regression: ArtifactRef | None = None
    """The general-regression set, JSON Lines; None: the one that eval has."""
    precision: Precision | None = None
    """What is computed in; None: what eval is set to."""
    in_production: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """The candidate was in production itself when a person asked: this puts nobody in its place."""
    index: Annotated[ArtifactRef | None, Field(exclude_if=operator.not_)] = None
    """Manifest of the index version that passages are taken from: the newest when this was planned. None:
    the project retrieves nothing, or nothing was indexed; nobody is asked with passages."""
    index_id: Annotated[Slug | None, Field(exclude_if=operator.not_)] = None
    completes: Annotated[Slug | None, Field(exclude_if=operator.not_)] = None
    """An evaluation of the same contestants by the same criteria, whose scorecard lacks the four cells. This
    evaluation measures the cells."""

    @property
    def informs(self) -> str | None:
        """Why the scorecard informs and decides nothing; None: a verdict follows from it."""
        if self.criteria:
            return "by other criteria than those of before the training: this informs and decides nothing"
        if self.in_production:
            return "of the model that is in production itself: this informs and decides nothing"
        if self.completes:
            return "for cells that an earlier scorecard lacks: this informs and decides nothing"
        return None

    @property
    def contestants(self) -> dict[Role, AdapterRef | None]:
        """Who is measured; None: the bare base. The candidate is first: if its files are no good, that is
        known at once."""
        found: dict[Role, AdapterRef | None] = {Role.CANDIDATE: self.adapter, Role.BASE: None}
        return found | ({Role.CHAMPION: self.champion.adapter} if self.champion else {})

    @property
    def scorecard_path(self) -> str:
        return f"scorecards/{self.scorecard_id}.json"

    @property
    def page_path(self) -> str:
        """Of the scorecard as one HTML page."""
        return f"scorecards/{self.scorecard_id}.html"


class EvaluationRequest(Frozen):
    """``runs/<run_id>/requests/<event_id>.json``: which evaluation an ``eval.requested`` led to.
    ``runs/<run_id>/successors/<evaluation_id>.json``: which evaluation took the place of one whose index
    version was deleted before it ended."""

    evaluation_id: Slug


def first_plan_path(run_id: str) -> str:
    """Return where the plan of a run's first evaluation lies."""
    return f"runs/{run_id}/evaluation.json"


def later_plan_path(run_id: str, evaluation_id: str) -> str:
    """Return where the plan of a later evaluation lies."""
    return f"runs/{run_id}/evaluations/{evaluation_id}.json"


def request_path(run_id: str, event_id: str) -> str:
    """Return where eval notes what it made of an ``eval.requested``."""
    return f"runs/{run_id}/requests/{event_id}.json"


def successor_path(run_id: str, evaluation_id: str) -> str:
    """Return where eval notes which evaluation took the place of one that lost its index."""
    return f"runs/{run_id}/successors/{evaluation_id}.json"

"""``GET /v1/projects/{project}/evaluations`` and one evaluation with its scorecard."""

from __future__ import annotations

import re
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from tunewheel_contracts.api.evaluations import EvaluationDetail, EvaluationSummary
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.errors import SLUG
from tunewheel_contracts.event import Envelope, decode_data
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan, later_plan_path
from tunewheel_contracts.formats.scorecard import Role as ContestantRole
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.control.paging import Paged, page_of
from tunewheel_console.control.resolving import LATEST, project_of, resolve, run_of
from tunewheel_console.project import Project
from tunewheel_console.run import verdict_of
from tunewheel_console.state import ConsoleState

Outcome = Literal["passed", "failed", "undecided", "review"]
Judged = Envelope[Any]
"""The event with an evaluation's verdict, or with the request for people's."""


def add_evaluations(web: FastAPI, state: ConsoleState, store: ObjectStore) -> None:
    """Add the routes of evaluations."""

    @web.get("/v1/projects/{project}/evaluations")
    @needs(Role.VIEWER)
    async def list_evaluations(
        project: str,
        asked: Paged,
        outcome: Outcome | None = None,
        run_id: Annotated[str | None, Query(description="Only those of this run.")] = None,
    ) -> Page[EvaluationSummary]:
        """The evaluations with a verdict, newest first."""
        view = project_of(state, project)
        of_run = run_of(view, run_id).run_id if run_id is not None else None
        found = [
            one
            for one in evaluations_of(view).values()
            if outcome in (None, verdict_of(one.data)) and of_run in (None, one.data.run_id)
        ]
        withheld = is_withheld(view)
        return page_of(
            found, asked, place=_place, answer=lambda one: EvaluationSummary(**_fields(one, withheld))
        )

    @web.get("/v1/projects/{project}/evaluations/{evaluation_id}")
    @needs(Role.VIEWER)
    async def show_evaluation(project: str, evaluation_id: str) -> EvaluationDetail:
        """An evaluation with its scorecard, which is withheld while a review of the project's answers is
        open."""
        return await find_evaluation(project_of(state, project), store, evaluation_id)


async def find_evaluation(view: Project, store: ObjectStore, asked: str) -> EvaluationDetail:
    """Return the evaluation that ``asked`` names, with its scorecard unless that is withheld.

    Raises:
        Refused: there is none, or it is not finished.
        TransientError: the store is away.
    """
    found = evaluations_of(view)
    is_named = asked == LATEST or any(name.startswith(asked) for name in found)
    if not is_named and re.fullmatch(SLUG, asked):  # it becomes part of a path
        informing = await _informing(view, store, asked)
        if informing is not None:
            return await _informed(view, store, *informing)
    newest = sorted(found, key=lambda name: _place(found[name]), reverse=True)
    name = resolve(asked, newest, field="evaluation_id", project=view.name)
    withheld, event = is_withheld(view), found[name]
    return EvaluationDetail(
        **_fields(event, withheld),
        checks=() if withheld else event.data.checks,
        scorecard=None if withheld else await read_scorecard(store, event.data.scorecard.path),
    )


def evaluations_of(project: Project) -> dict[str, Judged]:
    """Return the verdict of each evaluation, by its id."""
    return {name: event for run in project.runs.values() for name, event in run.evaluations.items()}


def unblinding(project: Project) -> list[str]:
    """Return the runs of which a review of answers is open, so that nobody may be told whose answers are
    whose. A review of any run counts, because all versions are compared with the same models on the same
    prompts."""
    return [one.subject for one in project.reviews.waiting if one.comparisons is None]


def is_withheld(project: Project) -> bool:
    return bool(unblinding(project))


async def last_scorecard(project: Project, store: ObjectStore) -> Scorecard | None:
    """Return the project's newest scorecard with figures; None: there is none, or it is withheld.

    Raises:
        TransientError: the store is away.
    """
    judged = [one for one in evaluations_of(project).values() if one.data.contestants]
    if not judged or is_withheld(project):
        return None
    return await read_scorecard(store, max(judged, key=_place).data.scorecard.path)


async def read_scorecard(store: ObjectStore, path: str) -> Scorecard | None:
    """Return a scorecard; None: it is not there. Raises TransientError: the store is away."""
    data = await store.read(path)
    return decode_data(Scorecard, data) if data is not None else None


async def _informing(
    project: Project, store: ObjectStore, evaluation_id: str
) -> tuple[EvaluationPlan, datetime] | None:
    """Return the plan of an evaluation that was asked for and gave no verdict, and when it was asked for."""
    asked = {one.data.run_id: one.time for one in project.evaluations_asked.values()}
    for run_id, at in asked.items():
        if data := await store.read(later_plan_path(run_id, evaluation_id)):
            return EvaluationPlan.model_validate_json(data), at
    return None


async def _informed(
    project: Project, store: ObjectStore, plan: EvaluationPlan, at: datetime
) -> EvaluationDetail:
    card = await read_scorecard(store, plan.scorecard_path)
    if card is None or plan.project != project.name:
        reason = f"{plan.evaluation_id} is not finished yet; ask again"
        raise Refused(HTTPStatus.NOT_FOUND, "evaluation_id", reason)
    withheld = is_withheld(project)
    champion = plan.champion.adapter.model_id if plan.champion else None
    return EvaluationDetail(
        evaluation_id=plan.evaluation_id or plan.run_id, project=plan.project, run_id=plan.run_id,
        model_id=plan.adapter.model_id, dataset_id=plan.rows_of, at=at, outcome="informs", against=champion,
        withheld=withheld, informs=plan.informs, checks=() if withheld else card.checks,
        scorecard=None if withheld else card,
    )  # fmt: skip


def _fields(event: Judged, withheld: bool) -> dict[str, Any]:
    data = event.data
    champions = (one.model_id for one in data.contestants if one.role is ContestantRole.CHAMPION)
    return {
        "evaluation_id": data.evaluation_id or data.run_id,
        "project": data.project,
        "run_id": data.run_id,
        "model_id": data.adapter.model_id,
        "dataset_id": data.dataset_id,
        "at": event.time,
        "outcome": verdict_of(data),
        "reasons": getattr(data, "reasons", ()),
        "field": getattr(data, "field", None),
        "against": next(champions, None),
        "reviewed_by": data.reviewed_by,
        "withheld": withheld,
    }


def _place(event: Judged) -> tuple[datetime, str]:
    return event.time, event.data.evaluation_id or event.data.run_id

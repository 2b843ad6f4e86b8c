"""Evaluations with their scorecards, the rows of a scorecard with all contestants' answers, and the labels of
the answers. Scores and labels stand in the file that eval wrote. Nothing is judged here."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from tunewheel_contracts.api.evaluations import (
    EvaluationDetail,
    EvaluationLabels,
    EvaluationSummary,
    LabelCell,
)
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.errors import SLUG
from tunewheel_contracts.event import Envelope, decode_data
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan, later_plan_path
from tunewheel_contracts.formats.generations import MARK, Generation, read_generations
from tunewheel_contracts.formats.scorecard import Role as ContestantRole
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.control.paging import Paged, page_by_number, page_of
from tunewheel_console.control.resolving import LATEST, View, find, run_of
from tunewheel_console.project import Project
from tunewheel_console.run import verdict_of

Outcome = Literal["passed", "failed", "undecided", "review"]
Judged = Envelope[Any]
"""The event with an evaluation's verdict, or with the request for people's."""


def add_evaluations(web: FastAPI, store: ObjectStore) -> None:
    @web.get("/v1/projects/{project}/evaluations")
    @needs(Role.VIEWER)
    async def list_evaluations(
        view: View,
        asked: Paged,
        outcome: Outcome | None = None,
        run_id: Annotated[str | None, Query(description="Only those of this run.")] = None,
    ) -> Page[EvaluationSummary]:
        """The evaluations with a verdict, newest first."""
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
    async def show_evaluation(view: View, evaluation_id: str) -> EvaluationDetail:
        """An evaluation with its scorecard, which is withheld while a review of the project's answers is
        open."""
        return await find_evaluation(view, store, evaluation_id)


async def find_evaluation(view: Project, store: ObjectStore, asked: str) -> EvaluationDetail:
    """Return the evaluation that ``asked`` names, with its scorecard unless that is withheld. Raises Refused:
    there is none, or it is not finished. TransientError: the store is away."""
    found = evaluations_of(view)
    is_named = asked == LATEST or any(name.startswith(asked) for name in found)
    if not is_named and re.fullmatch(SLUG, asked):  # it becomes part of a path
        informing = await _informing(view, store, asked)
        if informing is not None:
            return await _informed(view, store, *informing)
    event = find(asked, found, _place, field="evaluation_id", project=view.name)
    withheld = is_withheld(view)
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
    """Return the project's newest scorecard with figures; None: there is none, or it is withheld. Raises
    TransientError: the store is away."""
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


EVALUATION = "/v1/projects/{project}/evaluations/{evaluation_id}"
CANDIDATE = ContestantRole.CANDIDATE


def add_evaluation_rows(web: FastAPI, store: ObjectStore) -> None:
    async def rows_of(view: Project, evaluation_id: str) -> tuple[Scorecard, Sequence[Generation]]:
        found = await find_evaluation(view, store, evaluation_id)
        if found.scorecard is None:
            reason = "the scorecard is withheld, because a review of the project's answers is open"
            if not found.withheld:
                reason = "the scorecard is gone from the store"
            raise Refused(HTTPStatus.CONFLICT, "evaluation_id", reason)
        return found.scorecard, await _read(store, found.scorecard)

    @web.get(EVALUATION + "/rows")
    @needs(Role.VIEWER)
    async def list_evaluation_rows(
        view: View,
        evaluation_id: str,
        asked: Paged,
        difference: Annotated[
            Literal["candidate_worse", "candidate_better"] | None,
            Query(description="Only rows with such a difference from ``against``, by ``metric``."),
        ] = None,
        metric: Annotated[str | None, Query(description="Default: the first one of the slices.")] = None,
        against: ContestantRole | None = None,
        label: Annotated[str | None, Query(description="Only rows with this expected label.")] = None,
        answered: Annotated[str | None, Query(description="Only answers with this label.")] = None,
        unlabelled: Annotated[bool, Query(description="Only answers without a label.")] = False,
        role: Annotated[ContestantRole, Query(description="Whose answers are meant.")] = CANDIDATE,
    ) -> Page[Generation]:
        """The held-out rows with all contestants' answers, scores and labels."""
        card, rows = await rows_of(view, evaluation_id)
        if label is not None:
            rows = [row for row in rows if row.label == label]
        if answered is not None or unlabelled:
            rows = [row for row in rows if role in row.answers and row.answers[role].label == answered]
        if difference is not None:
            differs = _differing(card, rows, difference, metric, against)
            rows = [row for row in rows if differs(row)]
        return page_by_number(len(rows), asked, lambda begin, end: rows[begin:end])

    @web.get(EVALUATION + "/labels")
    @needs(Role.VIEWER)
    async def show_evaluation_labels(view: View, evaluation_id: str) -> EvaluationLabels:
        """How many rows of each expected label were answered with which label."""
        card, rows = await rows_of(view, evaluation_id)
        cells = Counter(
            (role, row.label, answer.label)
            for row in rows
            if row.label is not None
            for role, answer in row.answers.items()
            if answer.scores
        )
        in_order = sorted(cells, key=lambda cell: (cell[1], cell[2] is None, cell[2] or ""))
        return EvaluationLabels(
            evaluation_id=card.evaluation_id or card.run_id,
            answers={
                role: tuple(
                    LabelCell(expected=cell[1], answered=cell[2], rows=cells[cell])
                    for cell in in_order
                    if cell[0] is role
                )
                for role in sorted({role for role, _, _ in cells})
            },
        )


async def _read(store: ObjectStore, card: Scorecard) -> Sequence[Generation]:
    """Return the rows. After an erasure the rest of them has another name."""
    if card.generations is None:
        return ()
    data = await store.read(card.generations.path)
    if data is None:
        begin = card.generations.path.partition(MARK)[0] + MARK
        paths = [path for path in await store.list("scorecards") if path.startswith(begin)]
        data = b"".join([await store.read(path) or b"" for path in paths])
    return await asyncio.to_thread(read_generations, data)


def _differing(
    card: Scorecard,
    rows: Sequence[Generation],
    difference: str,
    metric: str | None,
    against: ContestantRole | None,
) -> Callable[[Generation], bool]:
    """Return whether the candidate's answer of a row is better, or worse, than that of ``against``."""
    roles = {one.role for one in card.contestants}
    other = against or (ContestantRole.CHAMPION if ContestantRole.CHAMPION in roles else ContestantRole.BASE)
    name = metric or next((one.metric for one in card.slices), next(iter(card.metrics), ""))
    if name not in card.metrics:
        names = ", ".join(card.metrics) or "none"
        raise Refused(HTTPStatus.NOT_FOUND, "metric", f"{name!r} was not measured; there is {names}")
    if rows and not any(answer.scores for answer in rows[0].answers.values()):
        reason = "needs scores by row, which this evaluation was written without; judge the run again"
        raise Refused(HTTPStatus.CONFLICT, "difference", reason)
    is_better = (difference == "candidate_better") is not card.metrics[name].lower_is_better

    def differs(row: Generation) -> bool:
        scores = [row.answers[one].scores.get(name) for one in (CANDIDATE, other) if one in row.answers]
        match scores:
            case [float(mine), float(others)]:
                return mine > others if is_better else mine < others
            case _:
                return False

    return differs

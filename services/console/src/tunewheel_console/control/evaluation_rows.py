"""The rows of a scorecard: each held-out prompt with all contestants' answers, and the labels of the answers.

Scores and labels stand in the file that eval wrote with the scorecard. Nothing is judged here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import FastAPI, Query
from tunewheel_contracts.api.evaluations import EvaluationLabels, LabelCell
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.formats.generations import MARK, Generation, read_generations
from tunewheel_contracts.formats.scorecard import Role as ContestantRole
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.control.evaluations import find_evaluation
from tunewheel_console.control.paging import Paged, page_by_number
from tunewheel_console.control.resolving import project_of
from tunewheel_console.state import ConsoleState

EVALUATION = "/v1/projects/{project}/evaluations/{evaluation_id}"
CANDIDATE = ContestantRole.CANDIDATE


def add_evaluation_rows(web: FastAPI, state: ConsoleState, store: ObjectStore) -> None:
    """Add the routes of a scorecard's rows."""

    async def rows_of(project: str, evaluation_id: str) -> tuple[Scorecard, Sequence[Generation]]:
        found = await find_evaluation(project_of(state, project), store, evaluation_id)
        if found.scorecard is None:
            reason = "the scorecard is withheld, because a review of the project's answers is open"
            if not found.withheld:
                reason = "the scorecard is gone from the store"
            raise Refused(HTTPStatus.CONFLICT, "evaluation_id", reason)
        return found.scorecard, await _read(store, found.scorecard)

    @web.get(EVALUATION + "/rows")
    @needs(Role.VIEWER)
    async def list_evaluation_rows(
        project: str,
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
        card, rows = await rows_of(project, evaluation_id)
        if label is not None:
            rows = [row for row in rows if row.label == label]
        if answered is not None or unlabelled:
            rows = [row for row in rows if role in row.answers and row.answers[role].label == answered]
        if difference is not None:
            differs = _differing(card, rows, difference, metric, against)
            rows = [row for row in rows if differs(row)]
        part, following = page_by_number(len(rows), asked)
        return Page[Generation](items=tuple(rows[at] for at in part), next=following, total=len(rows))

    @web.get(EVALUATION + "/labels")
    @needs(Role.VIEWER)
    async def show_evaluation_labels(project: str, evaluation_id: str) -> EvaluationLabels:
        """How many rows of each expected label were answered with which label."""
        card, rows = await rows_of(project, evaluation_id)
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
    name = metric or next((one.metric for one in card.slices), next(iter(card.metrics), None))
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

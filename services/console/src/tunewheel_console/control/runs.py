"""``GET /v1/projects/{project}/runs`` and one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.runs import (
    LossPoint,
    RunComparison,
    RunControl,
    RunDetail,
    RunFailure,
    RunProgress,
    RunSummary,
)
from tunewheel_contracts.changes import leaves
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.events.evaluation import EvalFailed, EvalUndecided, ReviewRequested
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_contracts.formats.scorecard import Role as ContestantRole
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ArtifactMissing, ObjectStore

from tunewheel_console.control.dataset_files import DatasetFiles
from tunewheel_console.control.evaluations import is_withheld
from tunewheel_console.control.paging import Paged, page_of
from tunewheel_console.control.resolving import View, run_of
from tunewheel_console.project import Project
from tunewheel_console.run import Run, verdict_of

MOST_COMPARED = 6
"""The most runs of one comparison: as many as have curves of different colours."""
RunState = Literal["waiting", "training", "paused", "completed", "failed", "cancelled", "superseded"]


def add_runs(web: FastAPI, store: ObjectStore) -> None:
    files = DatasetFiles(store)

    @web.get("/v1/projects/{project}/runs")
    @needs(Role.VIEWER)
    async def list_runs(
        view: View,
        asked: Paged,
        only: Annotated[RunState | None, Query(alias="state")] = None,
        dataset_id: Annotated[str | None, Query(description="Only runs of this version.")] = None,
    ) -> Page[RunSummary]:
        """The runs, newest first."""
        found = [
            run
            for run in view.runs.values()
            if only in (None, run.state) and dataset_id in (None, run.dataset_id)
        ]
        stages = stages_of(view)
        return page_of(found, asked, place=_place, answer=lambda run: run_summary(view, run, stages))

    @web.get("/v1/projects/{project}/runs/comparison")
    @needs(Role.VIEWER)
    async def compare_runs(
        view: View, compare: Annotated[str, Query(description="The ids of two to six runs, with commas.")]
    ) -> RunComparison:
        """Several runs with their curves, the fields of their recipes that differ, and their candidates'
        figures."""
        runs = list({run.run_id: run for run in (run_of(view, name) for name in compare.split(","))}.values())
        if not 2 <= len(runs) <= MOST_COMPARED:
            reason = f"names {len(runs)} runs; choose 2 to {MOST_COMPARED}"
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "compare", reason)
        recipes = [await _recipe(view, run, files, store) for run in runs]
        figures = [{} if is_withheld(view) else _figures(run) for run in runs]
        fields = _side_by_side(recipes)
        return RunComparison(
            runs=tuple(_detail(view, run) for run in runs),
            recipe={name: row for name, row in fields.items() if any(one != row[0] for one in row)},
            figures=_side_by_side(figures),
            withheld=is_withheld(view),
        )

    @web.get("/v1/projects/{project}/runs/{run_id}")
    @needs(Role.VIEWER)
    async def show_run(view: View, run_id: str) -> RunDetail:
        """A run with its plan, losses and verdict."""
        return _detail(view, run_of(view, run_id))


async def _recipe(project: Project, run: Run, files: DatasetFiles, store: ObjectStore) -> dict[str, Any]:
    """Return the recipe of a run, by dotted path: that of its manifest; before it is completed, that of its
    dataset version. Empty: the files are gone. Raises TransientError: the store is away."""
    try:
        if run.completed is not None:
            recipe = decode_data(RunManifest, await store.get(run.completed.data.manifest)).recipe
        elif run.dataset_id in project.datasets:
            recipe = (await files.open(project, run.dataset_id)).manifest.spec.train
        else:
            return {}
    except (ArtifactMissing, Refused):
        return {}
    return dict(leaves(recipe.model_dump(mode="json")))


def _figures(run: Run) -> dict[str, Any]:
    found = run.verdict.contestants if run.verdict is not None else ()
    return next((dict(one.metrics) for one in found if one.role is ContestantRole.CANDIDATE), {})


def _side_by_side(columns: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    names = sorted({name for column in columns for name in column})
    return {name: tuple(column.get(name) for column in columns) for name in names}


def stages_of(project: Project) -> dict[str | None, str]:
    """Return the stage of each run's version, by run."""
    return {course.run_id: course.stage.value for course in project.wheel.courses}


def run_summary(project: Project, run: Run, stages: Mapping[str | None, str]) -> RunSummary:
    return RunSummary(**_fields(project, run, stages))


def _detail(project: Project, run: Run) -> RunDetail:
    started = run.started.data if run.started else None
    completed = run.completed.data if run.completed else None
    failure = run.failure.data if run.failure else None
    planned = run.planned.data if run.planned else None
    controls = sorted(run.controls.values(), key=lambda one: one.time)
    newest = sorted(run.evaluations, key=lambda name: run.evaluations[name].time, reverse=True)
    of_start = started.model_dump(include={"attempt", "kernels", "driver", "cuda"}) if started else {}
    of_end = (
        {name: getattr(completed, name) for name in ("usage", "final_loss", "tokens", "start")}
        if completed
        else {}
    )
    return RunDetail(
        **_fields(project, run, stages_of(project)),
        **of_start,
        **of_end,
        progress=RunProgress(**run.latest.model_dump()) if run.latest else None,
        losses=tuple(
            LossPoint(step=step, loss=loss, learning_rate=rate, tokens_per_second=speed, memory_bytes=memory)
            for step, loss, rate, speed, memory in run.curve()
        ),
        validation=tuple(LossPoint(step=step, loss=loss) for step, loss in sorted(run.validation.items())),
        failure=RunFailure(**failure.model_dump()) if failure else None,
        controls=tuple(
            RunControl(
                command_id=one.id,
                action=one.data.action.value,
                at=one.time,
                by=one.data.principal.name if one.data.principal else None,
            )
            for one in controls
        ),
        plan=(completed.plan if completed else None) or (planned.plan if planned else None),
        cautions=planned.cautions if planned else (),
        evaluations=tuple(newest),
    )


def _fields(project: Project, run: Run, stages: Mapping[str | None, str]) -> dict[str, Any]:
    started, ended = run.started, run.completed or run.failure
    seconds = run.completed.data.wall_seconds if run.completed else None
    known = next((one.data for one in (run.started, run.planned) if one is not None), None)
    base = run.completed.data.adapter.base if run.completed else known.base if known else None
    return {
        "run_id": run.run_id,
        "project": project.name,
        "dataset_id": run.dataset_id or None,
        "state": run.state,
        "stage": stages.get(run.run_id),
        "step": run.step,
        "total_steps": run.total_steps,
        "loss": run.latest.loss if run.latest else run.completed.data.final_loss if run.completed else None,
        "verdict": verdict_of(run.verdict) if run.verdict is not None else None,
        "why": _why(run),
        "model_id": _model_id(run),
        "base": base.name if base else None,
        "method": started.data.method.value if started else None,
        "device": started.data.device if started else None,
        "created_at": run.created_at,
        "started_at": started.time if started else None,
        "ended_at": ended.time if ended else None,
        "news_at": run.news_at,
        "seconds": seconds,
    }


def _why(run: Run) -> str | None:
    if run.failure is not None:
        return run.ended
    match run.verdict:
        case EvalFailed() | EvalUndecided() as data:
            return "; ".join(data.reasons)
        case ReviewRequested():
            return "waits for people to review it"
        case _:
            return None


def _model_id(run: Run) -> str | None:
    if run.completed is not None:
        return run.completed.data.adapter.model_id
    return run.verdict.adapter.model_id if run.verdict is not None else None


def _place(run: Run) -> tuple[datetime, str]:
    return run.created_at, run.run_id

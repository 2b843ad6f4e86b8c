"""Models and the verdicts of their rollouts. The registry is asked, as the caller, about lineage, cards and
comparisons."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, Query, Request, Response
from tunewheel_contracts.api.models import HistoryStep, ModelDetail, ModelSummary, Rollout
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.lifecycle import ModelRegistered, Stage
from tunewheel_contracts.events.production import RolloutJudged
from tunewheel_contracts.formats.serving import ALIASES
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused
from tunewheel_wheel.models import stage_after

from tunewheel_console.control.evaluations import evaluations_of, is_withheld
from tunewheel_console.control.neighbours import Neighbour, handed_on
from tunewheel_console.control.paging import Paged, page_of
from tunewheel_console.control.resolving import View, find, project_of, told
from tunewheel_console.project import Project
from tunewheel_console.state import ConsoleState

Registered = Envelope[ModelRegistered]


def add_models(web: FastAPI) -> None:
    @web.get("/v1/projects/{project}/models")
    @needs(Role.VIEWER)
    async def list_models(
        view: View,
        asked: Paged,
        stage: Annotated[Stage | None, Query(alias="state", description="Only models in this stage.")] = None,
        kind: Literal["base", "adapter", "full"] | None = None,
    ) -> Page[ModelSummary]:
        """The registered models, newest first."""
        stages = view.stages
        found = [
            one
            for one in view.wheel.facts.models.registrations.values()
            if stage in (None, stages.get(one.data.model_id, Stage.REGISTERED))
            and kind in (None, one.data.kind)
        ]
        return page_of(
            found, asked, place=_place, answer=lambda one: ModelSummary(**_fields(view, one, stages))
        )

    @web.get("/v1/projects/{project}/models/{model_id}")
    @needs(Role.VIEWER)
    async def show_model(view: View, model_id: str) -> ModelDetail:
        """A model with its stages and figures. ``model_id`` may also be ``champion`` or ``challenger``."""
        return _detail(view, model_of(view, model_id))

    @web.get("/v1/projects/{project}/rollouts")
    @needs(Role.VIEWER)
    async def list_rollouts(
        view: View,
        asked: Paged,
        verdict: Literal["passed", "failed"] | None = None,
        model_id: Annotated[str | None, Query(description="Only those of this model.")] = None,
    ) -> Page[Rollout]:
        """The verdicts on shadow and canary stages, newest first."""
        name = model_of(view, model_id).data.model_id if model_id is not None else None
        found = [
            one
            for one in view.rollouts.values()
            if name in (None, one.data.model_id) and verdict in (None, one.data.verdict)
        ]
        return page_of(found, asked, place=lambda one: (one.time, one.id), answer=_rollout)


def model_of(project: Project, asked: str, *, field: str = "model_id") -> Registered:
    """Return the model, by its id or alias. Raises ``Refused`` as ``resolve``."""
    models = project.wheel.facts.models.registrations
    desired = project.desired.desired if project.desired is not None else None
    name = (desired.model_id(asked) if desired is not None and asked in ALIASES else None) or asked
    return find(name, models, _place, field=field, project=project.name, noun="model")


def _detail(project: Project, one: Registered) -> ModelDetail:
    name = one.data.model_id
    judged = [event for event in evaluations_of(project).values() if event.data.adapter.model_id == name]
    last = max(judged, key=lambda event: event.time, default=None)
    withheld = is_withheld(project)
    shown = last.data if last is not None and not withheld else None
    return ModelDetail(
        **_fields(project, one, project.stages),
        adapter=one.data.adapter,
        history=tuple(
            HistoryStep(
                event_id=step.id,
                stage=stage_after(step),
                reason=step.data.reason,
                cause=step.data.cause,
                at=step.time,
            )
            for step in project.wheel.facts.models.steps(name)
        ),
        evaluation_id=(last.data.evaluation_id or last.data.run_id) if last is not None else None,
        contestants=shown.contestants if shown is not None else (),
        checks=shown.checks if shown is not None else (),
        withheld=withheld and last is not None,
    )


def _fields(project: Project, one: Registered, stages: dict[str, Stage]) -> dict[str, Any]:
    data = one.data
    routes = project.desired.desired.routes if project.desired is not None else ()
    route = next((route for route in routes if route.model_id == data.model_id), None)
    entered = project.wheel.facts.models.entries.get(data.model_id)
    same = ("model_id", "project", "kind", "base", "base_facts", "run_id", "dataset_id")
    return {
        **{name: getattr(data, name) for name in same},
        "stage": stages.get(data.model_id, Stage.REGISTERED),
        "registered_at": one.time,
        "since": entered.time if entered is not None else one.time,
        "role": route.role.value if route is not None else None,
        "percent": route.percent if route is not None else None,
        "pinned": project.pinned == data.model_id,
    }


def _rollout(one: Envelope[RolloutJudged]) -> Rollout:
    return told(Rollout, one.data, event_id=one.id, at=one.time)


def _place(one: Registered) -> tuple[datetime, str]:
    return one.time, one.data.model_id


MODELS = "/v1/projects/{project}/models/{model_id}"


async def ask(registry: Neighbour, request: Request, *steps: str, **query: str) -> Response:
    """Return the registry's answer at ``/v1/projects/<steps…>``. Raises Refused: 404, a step is no name; or
    as ``Neighbour.send``. TransientError: the registry does not answer."""
    if {".", ".."} & {*steps}:  # httpx would normalise the path, and another route would answer
        raise Refused(HTTPStatus.NOT_FOUND, "name", "'.' and '..' name nothing")
    path = "/v1/projects/" + "/".join(quote(step, safe="") for step in steps)
    return handed_on(await registry.send(request, "GET", path, params=query))


def add_registry(web: FastAPI, state: ConsoleState, registry: Neighbour) -> None:
    @web.get(MODELS + "/card", response_class=Response)
    @needs(Role.VIEWER)
    async def show_card(request: Request, project: str, model_id: str) -> Response:
        """The model's card in the Hugging Face hub's format: Markdown with metadata in YAML."""
        return await ask(registry, request, project, "models", name_of(project, model_id), "card")

    @web.get(MODELS + "/comparison/{other}", response_class=Response)
    @needs(Role.VIEWER)
    async def compare_models(request: Request, project: str, model_id: str, other: str) -> Response:
        """What changed from ``model_id`` to ``other``, as the registry tells it."""
        one, another = name_of(project, model_id), name_of(project, other)
        return await ask(registry, request, project, "models", one, "comparison", another)

    @web.get("/v1/projects/{project}/lineage/{name:path}", response_class=Response)
    @needs(Role.VIEWER)
    async def show_lineage(
        request: Request, project: str, name: str, records: Annotated[int, Query(ge=0, le=10_000)] = 100
    ) -> Response:
        """All ancestors and descendants of ``name``, as the registry tells them."""
        return await ask(registry, request, project, "lineage", name, records=str(records))

    def name_of(project: str, asked: str) -> str:
        return model_of(project_of(state, project), asked).data.model_id

"""The read-only API: cards, comparisons and lineage, and what this process has folded of a project."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Query
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer
from tunewheel_contracts.api.models import HistoryStep, RegisteredModel
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.identity.guard import RESPONSES, guard_descriptions, needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused, answer_errors
from tunewheel_runtime.store import ObjectStore

from tunewheel_registry.about.card import model_card
from tunewheel_registry.about.comparison import Comparison, compare
from tunewheel_registry.about.facts import ModelFacts, facts_of
from tunewheel_registry.desired import desired_state
from tunewheel_registry.ledger import Ledger
from tunewheel_registry.lineage.index import LineageIndex
from tunewheel_registry.lineage.records import RecordFiles
from tunewheel_registry.lineage.tracing import Lineage, trace
from tunewheel_registry.state import Model

KnownSpec = Callable[[str], ProjectSpec | None]
ProjectName = Annotated[str, Path(max_length=63)]
ModelName = Annotated[str, Path(max_length=63)]
BEARER = Depends(HTTPBearer(auto_error=False, description="An API key, or a token of the OIDC issuer."))
"""Only documents the key in OpenAPI. The guard of each route checks it."""
MOST_RECORDS = 10_000
UNKNOWN = (
    "nothing in project {project} is called {name!r}; ask for a record, a source as versions name it "
    "(source-…), an example, a dataset, a run, a model, a scorecard, an evaluation, a review, an erasure, or "
    "the id of an event of one of them. A completion is found by the model that its answer names"
)


class ModelState(RegisteredModel):
    """What this process has folded of a model."""

    adapter: AdapterRef | None
    replaces: str | None
    history: list[HistoryStep]


def make_api(ledger: Ledger, known_spec: KnownSpec) -> FastAPI:
    """Build the API. It only reads ``ledger``."""
    api = FastAPI(
        title="Tunewheel registry",
        version="1",
        docs_url="/docs",
        redoc_url=None,
        dependencies=[BEARER],
        responses=RESPONSES,
    )

    @api.get("/v1/projects/{project}/models")
    @needs(Role.VIEWER)
    async def list_models(project: ProjectName) -> list[ModelState]:
        """In order of registration."""
        return [_model_state(model) for model in ledger.state(project).models.values()]

    @api.get("/v1/projects/{project}/desired")
    @needs(Role.VIEWER)
    async def read_desired(project: ProjectName) -> ServingDesired:
        spec = known_spec(project)
        if spec is None:
            raise _unknown("project", f"{project!r} is not declared; run `tunewheel project declare`")
        desired = desired_state(ledger.state(project), spec)
        if desired is None:
            raise _unknown("project", f"{project!r} has no registered model yet")
        return desired

    guard_descriptions(api.routes)
    answer_errors(api)
    return api


def _unknown(field: str, reason: str) -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, field, reason)


def _model_state(model: Model) -> ModelState:
    known = model.registration
    fields = ("model_id", "project", "kind", "base", "base_facts", "run_id", "dataset_id", "adapter")
    steps = [
        HistoryStep(event_id=s.event_id, stage=s.stage, reason=s.reason, cause=s.cause, at=s.at)
        for s in model.history
    ]
    same = {name: getattr(known, name) for name in fields}
    return ModelState(**same, stage=model.stage, replaces=model.replaces, history=steps)


def add_about(api: FastAPI, ledger: Ledger, index: LineageIndex, store: ObjectStore) -> None:
    """Add the routes about single models to ``api``."""

    async def facts(project: str, model_id: str) -> ModelFacts:
        state = ledger.state(project)
        model = state.models.get(model_id)
        if model is None:
            reason = f"{model_id!r} is unknown in project {project!r}; see /v1/projects/{project}/models"
            raise _unknown("model_id", reason)
        return await facts_of(state, index.graph(project), store, model)

    @api.get("/v1/projects/{project}/models/{model_id}/card", response_class=PlainTextResponse)
    @needs(Role.VIEWER)
    async def read_card(project: ProjectName, model_id: ModelName) -> PlainTextResponse:
        """The model's card in the Hugging Face hub's format: Markdown with metadata in YAML."""
        return PlainTextResponse(model_card(await facts(project, model_id)), media_type="text/markdown")

    @api.get("/v1/projects/{project}/models/{model_id}/comparison/{other}")
    @needs(Role.VIEWER)
    async def compare_models(project: ProjectName, model_id: ModelName, other: ModelName) -> Comparison:
        """What changed from ``model_id`` to ``other``."""
        first, second = await facts(project, model_id), await facts(project, other)
        return await compare(store, first, second)


def add_lineage(api: FastAPI, index: LineageIndex, files: RecordFiles) -> None:
    """Add the route of lineage to ``api``."""

    @api.get("/v1/projects/{project}/lineage/{name:path}")
    @needs(Role.VIEWER)
    async def read_lineage(
        project: ProjectName,
        name: Annotated[str, Path(max_length=512)],
        records: Annotated[int, Query(ge=0, le=MOST_RECORDS)] = 100,
    ) -> Lineage:
        """All ancestors and descendants of ``name``. ``records``: most records to list."""
        found = await trace(index.graph(project), files, name, project=project, most_records=records)
        if found is None:
            raise _unknown("name", UNKNOWN.format(project=project, name=name))
        return found

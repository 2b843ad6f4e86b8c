"""The API's routes about a single model: its card, and its comparison with another model."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, HTTPException, Path
from fastapi.responses import PlainTextResponse
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_registry.about.card import model_card
from tunewheel_registry.about.comparison import Comparison, compare
from tunewheel_registry.about.facts import ModelFacts, facts_of
from tunewheel_registry.ledger import Ledger
from tunewheel_registry.lineage.index import LineageIndex
from tunewheel_registry.lineage.records import Artifacts

ProjectName = Annotated[str, Path(max_length=63)]
ModelName = Annotated[str, Path(max_length=63)]


def add_about(api: FastAPI, ledger: Ledger, index: LineageIndex, store: Artifacts) -> None:
    """Add the routes about single models to ``api``."""

    async def facts(project: str, model_id: str) -> ModelFacts:
        state = ledger.state(project)
        model = state.models.get(model_id)
        if model is None:
            reason = (
                f"model_id: {model_id!r} is unknown in project {project!r}; see /v1/projects/{project}/models"
            )
            raise HTTPException(404, reason)
        try:
            return await facts_of(state, index.graph(project), store, model)
        except TransientError as error:
            raise HTTPException(503, str(error)) from error

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
        try:
            return await compare(store, first, second)
        except TransientError as error:
            raise HTTPException(503, str(error)) from error

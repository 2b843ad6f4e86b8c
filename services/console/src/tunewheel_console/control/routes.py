"""Adds the control API to the console's app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from tunewheel_runtime.identity.guard import RESPONSES, guard_descriptions, refused
from tunewheel_runtime.refusals import answer_errors
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.actions import Actions
from tunewheel_console.completions import Completions
from tunewheel_console.control.commands import add_audit, add_commands
from tunewheel_console.control.completions import add_completions
from tunewheel_console.control.datasets import add_datasets
from tunewheel_console.control.declarations import add_declarations
from tunewheel_console.control.documents import add_documents
from tunewheel_console.control.erasures import add_erasures, add_withdrawals
from tunewheel_console.control.evaluations import add_evaluation_rows, add_evaluations
from tunewheel_console.control.events import Feed, Identify, add_events
from tunewheel_console.control.files import add_files
from tunewheel_console.control.identity import add_keys
from tunewheel_console.control.log import Log
from tunewheel_console.control.models import add_models, add_registry
from tunewheel_console.control.neighbours import Neighbour
from tunewheel_console.control.orders import add_orders
from tunewheel_console.control.playground import add_playground
from tunewheel_console.control.projects import add_projects
from tunewheel_console.control.quarantine import add_quarantine
from tunewheel_console.control.runs import add_runs
from tunewheel_console.control.services import Lags, add_services
from tunewheel_console.control.sweeps import add_sweep_orders, add_sweeps
from tunewheel_console.control.turns import add_alarms, add_turns
from tunewheel_console.letters import Letters
from tunewheel_console.settings import Settings, allowed_sources
from tunewheel_console.state import ConsoleState

REFUSALS: dict[int | str, dict[str, Any]] = {
    **RESPONSES,
    404: refused("The named thing is not there; `param` says which"),
    409: refused("Several things are meant, or the state forbids it"),
}
"""The refusals of every route, for the API's description."""
BEARER = Depends(HTTPBearer(auto_error=False, description="An API key, or a token of the OIDC issuer."))
"""Only documents the key in OpenAPI. The guard of each route checks it."""


def make_api(state: ConsoleState | None = None) -> FastAPI:
    """Return the console's app, with the API's description at ``/docs`` and ``/openapi.json``. A request that
    names a project of ``state`` takes it into memory first, and lets other requests go on meanwhile."""

    async def open_project(request: Request) -> None:
        if state is not None and (name := request.path_params.get("project")) in state.projects.resting:
            await state.projects.open(name)

    web = FastAPI(
        title="Tunewheel",
        version="1",
        redoc_url=None,
        dependencies=[BEARER, Depends(open_project)],
        responses=REFUSALS,
        generate_unique_id_function=lambda route: route.name,
    )
    web.state.console = state
    guard_descriptions(web.routes)
    answer_errors(web)
    return web


@dataclass(frozen=True, slots=True)
class Sources:
    """What the routes read besides the state."""

    store: ObjectStore
    feed: Feed
    letters: Letters
    lags: Lags
    registry: Neighbour
    gateway: Neighbour
    completions: Completions


def add_control(web: FastAPI, state: ConsoleState, sources: Sources, identify: Identify) -> None:
    """Add the routes that only read. ``identify`` returns the caller of a request with its present roles."""
    store = sources.store
    add_projects(web, state)
    add_datasets(web, store)
    add_runs(web, store)
    add_sweeps(web)
    add_files(web, store)
    add_evaluations(web, store)
    add_evaluation_rows(web, store)
    add_models(web)
    add_turns(web)
    add_alarms(web, state)
    add_completions(web, sources.completions)
    add_registry(web, state, sources.registry)
    add_documents(web, store, sources.gateway)
    add_playground(web, sources.gateway)
    add_events(web, state, sources.feed, identify)
    add_services(web, sources.lags)


def add_steering(
    web: FastAPI, state: ConsoleState, actions: Actions, store: ObjectStore, log: Log, settings: Settings
) -> None:
    """Add the routes that take commands, and the routes that tell the outcome of a command."""
    add_declarations(web, state, actions, log, allowed_sources(settings))
    add_orders(web, state, actions, log)
    add_sweep_orders(web, actions, store)
    add_erasures(web, actions)
    add_withdrawals(web, state, actions, log)
    add_quarantine(web, state, actions, store)
    add_commands(web, state, store, log)
    add_audit(web, state)
    add_keys(web, settings.api_keys_file)


def sort_by_noun(web: FastAPI) -> None:
    """Tag each route with its noun, under which ``/docs`` lists it."""
    for route in web.routes:
        if isinstance(route, APIRoute):
            parts = route.path.removeprefix("/v1/").removeprefix("projects/{project}/").split("/")
            route.tags = [parts[0]]

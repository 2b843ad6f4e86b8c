"""``/v1/status``: the routes of the projects, whether each was judged, and the engines."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec

from tunewheel_serve_gateway.catalog import Catalog
from tunewheel_serve_gateway.reconcile import Reconciler
from tunewheel_serve_gateway.retrieval.retriever import Retriever
from tunewheel_serve_gateway.routing import ProjectTable
from tunewheel_serve_gateway.upstream.pool import Pool


def status_of(
    allowed: Collection[str] | None,
    catalog: Catalog,
    reconciler: Reconciler,
    pool: Pool,
    retriever: Retriever,
) -> dict[str, Any]:
    """Return what is served for the projects in ``allowed``, and the reasons for what is not served.

    ``allowed`` None means every project. Only then are the engines' addresses and errors included.
    """
    tables = reconciler.table.projects.items()
    mine = {name: table for name, table in tables if allowed is None or name in allowed}
    projects = (project for project in catalog.projects() if project.project in mine)
    named = {route.model_id for p in projects for route in (*p.routes, *p.stand_ins)}
    failures = [(name, f) for name, f in reconciler.failures.items() if name in named]
    engine: dict[str, Any] = {"reachable": any(e.error is None for e in pool.endpoints)}
    if allowed is None:
        told = {e.url: reconciler.not_served(e) for e in pool.endpoints}
        endpoints = [one | {"not_served": told[one["url"]]} for one in pool.status()]
        engine |= {"error": reconciler.engine_error, "endpoints": endpoints}
    return {
        "engine": engine,
        "projects": {name: _project_status(table, pool, retriever) for name, table in mine.items()},
        "failed_adapters": {name: {"attempts": f.attempts, "reason": f.reason} for name, f in failures},
    }


def _project_status(table: ProjectTable, pool: Pool, retriever: Retriever) -> dict[str, Any]:
    """Return one project's routes as plain data.

    Each judged route has the hash of its bundle, whether it is served as it was judged, and which properties
    the engines do not report. A project with retrieval also has the state of its index.
    """
    spec = retriever.spec(table.project)
    routes = [
        {
            "role": target.role.value,
            "model_id": target.model_id,
            "percent": target.percent,
            "judged": target.bundle is not None and retrieves_as_judged(target.bundle, spec),
            "bundle": target.bundle.sha256 if target.bundle else None,
            "unknown": pool.unknown_of(target),
        }
        for target in table.targets
    ]
    status: dict[str, Any] = {"routes": routes, "waiting_for": table.waiting_for}
    if spec is not None:
        status["retrieval"] = retriever.indexes.status(table.project)
    return status


def retrieves_as_judged(bundle: Bundle, retrieval: RetrievalSpec | None) -> bool:
    """Return whether requests get passages by the same retrieval spec with which the model was judged.
    ``retrieval``: the project's present retrieval spec. Requests that set ``retrieval`` are not
    considered."""
    serves = retrieval.sha256 if retrieval is not None and retrieval.default == "on" else None
    return bundle.retrieval_sha256 == serves

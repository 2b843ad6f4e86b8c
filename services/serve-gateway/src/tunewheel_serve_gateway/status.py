"""The part of ``/v1/status`` about one project: its routes, whether each was judged, and its index
version."""

from __future__ import annotations

from typing import Any

from tunewheel_serve_gateway.judged import retrieves_as_judged
from tunewheel_serve_gateway.retrieval.retriever import Retriever
from tunewheel_serve_gateway.routing import ProjectTable
from tunewheel_serve_gateway.upstream.pool import Pool


def project_status(table: ProjectTable, pool: Pool, retriever: Retriever) -> dict[str, Any]:
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

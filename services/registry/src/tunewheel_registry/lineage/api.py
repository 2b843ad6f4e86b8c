"""The API's routes on lineage."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, HTTPException, Path, Query
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_registry.lineage.answer import Lineage
from tunewheel_registry.lineage.index import LineageIndex
from tunewheel_registry.lineage.records import RecordFiles
from tunewheel_registry.lineage.tracing import trace

ProjectName = Annotated[str, Path(max_length=63)]
MOST_RECORDS = 10_000
UNKNOWN = (
    "name: nothing in project {project} is called {name!r}; ask for a record, a source as versions name it "
    "(source-…), an example, a dataset, a run, a model, a scorecard, an evaluation, a review, an erasure, or "
    "the id of an event of one of them. A completion is found by the model that its answer names"
)


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
        try:
            found = await trace(index.graph(project), files, name, project=project, most_records=records)
        except TransientError as error:
            raise HTTPException(503, str(error)) from error
        if found is None:
            raise HTTPException(404, UNKNOWN.format(project=project, name=name))
        return found

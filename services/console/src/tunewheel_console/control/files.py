"""Files of the object store over the API: a run's manifest and model, and a dataset version's tokenizer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from io import BytesIO
from zipfile import ZipFile

from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ArtifactMissing, ObjectStore

from tunewheel_console.control.dataset_files import DatasetFiles
from tunewheel_console.control.datasets import DATASETS, dataset_of
from tunewheel_console.control.resolving import project_of, run_of
from tunewheel_console.project import Project
from tunewheel_console.state import ConsoleState

RUN = "/v1/projects/{project}/runs/{run_id}"
BINARY = "application/octet-stream"


def add_files(web: FastAPI, state: ConsoleState, store: ObjectStore) -> None:
    """Add the routes of files."""
    files = DatasetFiles(store)

    @web.get(RUN + "/manifest")
    @needs(Role.VIEWER)
    async def show_run_manifest(project: str, run_id: str) -> RunManifest:
        """How a completed run was trained, and the files of its model, each with its size and its hash."""
        return await _manifest(project_of(state, project), run_id, store)

    @web.get(
        RUN + "/files/{name:path}",
        response_class=StreamingResponse,
        responses={200: {"content": {BINARY: {}}}},
    )
    @needs(Role.VIEWER)
    async def read_run_file(project: str, run_id: str, name: str) -> StreamingResponse:
        """A file of a run's model. ``name`` is its path in the manifest, below the adapter's path."""
        manifest = await _manifest(project_of(state, project), run_id, store)
        found = {_name(ref, manifest): ref for ref in manifest.adapter.files}
        if name not in found:
            reason = f"{manifest.run_id} has no file {name!r}; its manifest lists {', '.join(found)}"
            raise Refused(HTTPStatus.NOT_FOUND, "name", reason)
        parts = store.parts(found[name])
        try:
            first = await anext(parts, b"")
        except ArtifactMissing as error:
            raise _gone(manifest.run_id) from error
        return StreamingResponse(_all(first, parts), media_type=BINARY)

    @web.get(
        DATASETS + "/{dataset_id}/tokenizer",
        response_class=Response,
        responses={200: {"content": {"application/zip": {}}}},
    )
    @needs(Role.VIEWER)
    async def read_tokenizer(project: str, dataset_id: str) -> Response:
        """The files of the tokenizer with which a version's tokens were counted, as a ZIP archive."""
        view = project_of(state, project)
        version = await files.open(view, dataset_of(view, dataset_id).data.dataset_id)
        use = version.manifest.tokenizer
        found = await store.read_folder(f"tokenizers/{use.sha256}") if use and use.sha256 else {}
        if not found:
            reason = f"{version.manifest.dataset_id} was built without a tokenizer"
            raise Refused(HTTPStatus.NOT_FOUND, "dataset_id", reason)
        packed = BytesIO()
        with ZipFile(packed, "w") as archive:
            for name, data in found.items():
                archive.writestr(name, data)
        return Response(packed.getvalue(), media_type="application/zip")


async def _manifest(project: Project, asked: str, store: ObjectStore) -> RunManifest:
    """Return the manifest of a run.

    Raises:
        Refused: 404, there is no such run; 409, it has no model; 410, its files are gone.
    """
    run = run_of(project, asked)
    if run.completed is None:
        raise Refused(HTTPStatus.CONFLICT, "run_id", f"{run.run_id} is {run.state}, so it has no model")
    try:
        return decode_data(RunManifest, await store.get(run.completed.data.manifest))
    except ArtifactMissing as error:
        raise _gone(run.run_id) from error


def _name(ref: ArtifactRef, manifest: RunManifest) -> str:
    return ref.path.removeprefix(f"{manifest.adapter.path}/")


def _gone(run_id: str) -> Refused:
    reason = f"the files of {run_id} are gone from the store; an erasure deletes models, for example"
    return Refused(HTTPStatus.GONE, "run_id", reason)


async def _all(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in others:
        yield part

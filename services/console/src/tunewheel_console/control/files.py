"""Files of the object store over the API: a run's manifest, model and scorecard, and a dataset version's
tokenizer, by which a row is encoded as training does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from tunewheel_contracts.api.datasets import RowTokens
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ArtifactMissing, ObjectStore

from tunewheel_console.control.dataset_files import DatasetFiles
from tunewheel_console.control.evaluations import unblinding
from tunewheel_console.control.resolving import View, dataset_of, run_of
from tunewheel_console.project import Project

if TYPE_CHECKING:
    from tunewheel_basemodel.tokenizer import PreTrainedTokenizerBase

DATASETS = "/v1/projects/{project}/datasets"
RUN = "/v1/projects/{project}/runs/{run_id}"
BINARY = "application/octet-stream"


def add_files(web: FastAPI, store: ObjectStore) -> None:
    files = DatasetFiles(store)

    @web.get(RUN + "/manifest")
    @needs(Role.VIEWER)
    async def show_run_manifest(view: View, run_id: str) -> RunManifest:
        """How a completed run was trained, and the files of its model, each with its size and its hash."""
        return await _manifest(view, run_id, store)

    @web.get(
        RUN + "/files/{name:path}",
        response_class=StreamingResponse,
        responses={200: {"content": {BINARY: {}}}},
    )
    @needs(Role.VIEWER)
    async def read_run_file(view: View, run_id: str, name: str) -> StreamingResponse:
        """A file of a run's model. ``name`` is its path in the manifest, below the adapter's path."""
        manifest = await _manifest(view, run_id, store)
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
    async def read_tokenizer(view: View, dataset_id: str) -> Response:
        """The files of the tokenizer with which a version's tokens were counted, as a ZIP archive."""
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
    """Return the manifest of a run. Raises Refused: 404, there is no such run; 409, it has no model; 410, its
    files are gone."""
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


PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
"""The content security policy of a page with texts of models and customers: no script runs, and the page has
no origin."""


def add_scorecard_page(api: FastAPI, store: ObjectStore) -> None:
    """Add ``GET /v1/projects/{project}/runs/{run_id}/scorecard``, the page of a run's last verdict.

    Status 404: there is none. 409: a review of the project's answers is open. 503: the store is away.
    """

    @api.get("/v1/projects/{project}/runs/{run_id}/scorecard", response_class=HTMLResponse)
    @needs(Role.VIEWER)
    async def show_scorecard(view: View, run_id: str) -> HTMLResponse:
        """The page of a run's last verdict, withheld while a review of the project's answers is open."""
        run = run_of(view, run_id)
        if run.verdict is None:
            raise Refused(HTTPStatus.NOT_FOUND, "run_id", f"{view.name} has no verdict on {run.run_id}")
        if waiting := unblinding(view):
            reason = (
                f"a review of {', '.join(waiting)} is open, and the page says whose answers are whose; it "
                "can be read once the review has ended"
            )
            raise Refused(HTTPStatus.CONFLICT, "run_id", reason)
        path = PurePosixPath(run.verdict.scorecard.path).with_suffix(".html")
        page = await store.read(str(path))
        if page is None:
            raise Refused(HTTPStatus.NOT_FOUND, "run_id", f"the scorecard of {run.run_id} has no page")
        return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})


class Tokens:
    """Encodes rows. The tokenizer that was used last stays in memory."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._last: tuple[str, PreTrainedTokenizerBase] | None = None
        self._opening = asyncio.Lock()

    async def of_row(self, manifest: DatasetManifest, row: Mapping[str, Any], split: str) -> RowTokens:
        """Return the tokens of a row of ``split``. Raises Refused: 404, the version was built without a
        tokenizer; 409, its chat template refuses the row. TransientError: the store is away."""
        async with self._opening:
            tokenizer = await self._tokenizer(manifest)
        return await asyncio.to_thread(_encoded, tokenizer, row, split, manifest.spec)

    async def _tokenizer(self, manifest: DatasetManifest) -> PreTrainedTokenizerBase:
        use = manifest.tokenizer
        if use is not None and self._last is not None and self._last[0] == use.sha256:
            return self._last[1]
        found = await self._store.read_folder(f"tokenizers/{use.sha256}") if use and use.sha256 else {}
        if use is None or use.sha256 is None or not found:
            reason = f"{manifest.dataset_id} was built without a tokenizer, so its tokens are not known"
            raise Refused(HTTPStatus.NOT_FOUND, "dataset_id", reason)
        self._last = use.sha256, await asyncio.to_thread(_opened, found)
        return self._last[1]


def _opened(files: Mapping[str, bytes]) -> PreTrainedTokenizerBase:
    from tunewheel_basemodel.tokenizer import import_library, open_tokenizer

    import_library()
    with TemporaryDirectory(prefix="tunewheel-tokenizer-") as folder:
        for name, data in files.items():
            (Path(folder) / Path(name).name).write_bytes(data)
        return open_tokenizer(Path(folder))


def _encoded(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], split: str, spec: ProjectSpec
) -> RowTokens:
    from tunewheel_basemodel.chat import encode_row, pieces, with_variables
    from tunewheel_basemodel.errors import InvalidChat

    tokenizer = with_variables(tokenizer, spec.task.chat_template_kwargs)
    try:
        ids, mask = encode_row(tokenizer, row)
        texts = pieces(tokenizer, row["messages"])
    except InvalidChat as error:
        raise Refused(HTTPStatus.CONFLICT, "row_id", str(error)) from error
    return RowTokens(
        row_id=row["example_id"], split=split, pieces=tuple(texts), ids=tuple(ids),
        learnt=tuple(map(bool, mask)), longest=spec.train.max_tokens,
    )  # fmt: skip

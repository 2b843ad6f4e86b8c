"""``GET /v1/projects/{project}/documents`` and ``/passages``: the documents in the newest index version, and
what a question finds in them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from tunewheel_contracts.api.documents import (
    DocumentDetail,
    DocumentPassage,
    IndexedDocument,
    PassageSearch,
)
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.index import IndexManifest, InjectedPassage, InjectedPassages
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ArtifactMissing, ObjectStore

from tunewheel_console.control.neighbours import Neighbour, handed_on
from tunewheel_console.control.paging import Paged, page_by_number
from tunewheel_console.control.resolving import View
from tunewheel_console.project import Project

if TYPE_CHECKING:
    import polars as pl

DOCUMENTS = "/v1/projects/{project}/documents"
LONGEST_QUESTION = 4_000
"""As the gateway searches: the characters after these change nothing."""
Question = Annotated[
    str, Query(min_length=1, max_length=LONGEST_QUESTION, description="As a user would ask it.")
]


class IndexFiles:
    """The newest index version of a project, in the store. Its files never change, but the index deletes old
    versions."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def manifest(self, view: Project) -> IndexManifest | None:
        """Return the manifest; None: the project has no index. The methods raise TransientError: the store is
        away, or a newer version just took the place of this one."""
        return (
            None if view.index is None else decode_data(IndexManifest, await self._get(view.index.manifest))
        )

    async def waiting(self, manifest: IndexManifest) -> list[InjectedPassage]:
        """Return the passages that address the model and wait for a person."""
        if manifest.injections is None:
            return []
        found = decode_data(InjectedPassages, await self._get(manifest.injections))
        return [one for one in found.passages if not one.released]

    async def table(self, ref: ArtifactRef) -> pl.DataFrame:
        import polars as pl

        return await asyncio.to_thread(pl.read_parquet, BytesIO(await self._get(ref)))

    async def _get(self, ref: ArtifactRef) -> bytes:
        try:
            return await self._store.get(ref)
        except ArtifactMissing as error:
            reason = "a newer index version just replaced this one; send the request again"
            raise TransientError(reason) from error


def add_documents(web: FastAPI, store: ObjectStore, gateway: Neighbour) -> None:
    files = IndexFiles(store)

    @web.get(DOCUMENTS)
    @needs(Role.VIEWER)
    async def list_documents(view: View, asked: Paged) -> Page[IndexedDocument]:
        """The documents in the newest index version, by their ids; none while the project has no index."""
        if (manifest := await files.manifest(view)) is None:
            return Page[IndexedDocument](items=(), total=0)
        index_id, table = manifest.index_id, await files.table(manifest.documents)
        waiting = Counter(one.document_id for one in await files.waiting(manifest))

        def described(begin: int, end: int) -> list[IndexedDocument]:
            rows = table[begin:end].iter_rows(named=True)
            return [IndexedDocument(**_fields(row, index_id, waiting)) for row in rows]

        return page_by_number(table.height, asked, described)

    @web.get(DOCUMENTS + "/{document_id:path}")
    @needs(Role.VIEWER)
    async def show_document(request: Request, view: View, document_id: str) -> DocumentDetail:
        """A document with its passages. A caller in none of its groups gets no passage."""
        manifest = await files.manifest(view)
        found = await _row(files, manifest, document_id)
        if manifest is None or found is None:
            reason = (
                f"the index of {view.name} has no {document_id!r}; see GET /v1/projects/{view.name}/documents"
            )
            raise Refused(HTTPStatus.NOT_FOUND, "document_id", reason)
        held = [one for one in await files.waiting(manifest) if one.document_id == document_id]
        fields = _fields(found, manifest.index_id, Counter({document_id: len(held)}))
        allowed = fields["allowed_groups"]
        if allowed is not None and caller_of(request).groups.isdisjoint(allowed):
            return DocumentDetail(**fields, hidden=True)
        rows = (await files.table(manifest.passages)).filter(document_id=document_id)
        return DocumentDetail(**fields, texts=_in_order(rows.iter_rows(named=True), held))

    @web.get("/v1/projects/{project}/passages", response_model=PassageSearch)
    @needs(Role.VIEWER)
    async def search_passages(request: Request, view: View, question: Question) -> Response:
        """What a question finds in the documents, and why, as the gateway tells the same caller. No model is
        asked."""
        asked = {"project": view.name, "question": question}
        return handed_on(await gateway.send(request, "POST", "/v1/search", json=asked))


async def _row(files: IndexFiles, manifest: IndexManifest | None, document_id: str) -> dict[str, Any] | None:
    if manifest is None:
        return None
    found = (await files.table(manifest.documents)).filter(document_id=document_id)
    return next(found.iter_rows(named=True), None)


def _fields(row: dict[str, Any], index_id: str, waiting: Counter[str]) -> dict[str, Any]:
    """Return the fields of a document. ``row`` lacks those that its release did not know."""
    told = {name: row.get(name) for name in IndexedDocument.model_fields if name in row}
    return told | {"index_id": index_id, "waiting": waiting[row["document_id"]]} | {
        "allowed_groups": None if row.get("allowed_groups") is None else tuple(row["allowed_groups"])
    }  # fmt: skip


def _in_order(rows: Iterable[dict[str, Any]], held: Iterable[InjectedPassage]) -> tuple[DocumentPassage, ...]:
    found = [DocumentPassage.model_validate(row) for row in rows]
    found += [DocumentPassage.model_validate(one.model_dump()) for one in held]
    return tuple(sorted(found, key=lambda one: one.order))

"""Takes data back: withdrawals of documents, and erasures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from tunewheel_contracts.api.commands import DocumentsWithdrawn, Erasure, ErasureOrdered
from tunewheel_contracts.api.documents import DocumentDetail, IndexedDocument, PassageSearch
from tunewheel_contracts.api.paging import Page

from tunewheel_client.aio.resource import Paging, Resource


class Documents(Resource):
    """The documents that were published to a project."""

    async def list(self, project: str, **paging: Unpack[Paging]) -> Page[IndexedDocument]:
        """Return a page of the documents in the newest index version, by their ids."""
        return await self._read(Page[IndexedDocument], project, "documents", **paging)

    async def show(self, project: str, document_id: str) -> DocumentDetail:
        """Return a document of the index with its passages."""
        return await self._read(DocumentDetail, project, "documents", document_id)

    async def search(self, project: str, question: str) -> PassageSearch:
        """Return the passages that a question finds, with their ranks and scores, and which are sent."""
        return await self._read(PassageSearch, project, "passages", question=question)

    async def withdraw(
        self, project: str, documents: Sequence[str], *, reason: str = "", request: str | None = None
    ) -> DocumentsWithdrawn:
        """Keep the documents of these ids out of later dataset versions. Their texts are not erased."""
        told = {"documents": list(documents), "reason": reason, "request": request}
        return await self._order(DocumentsWithdrawn, project, "withdrawals", order=told)


class Erasures(Resource):
    """Requests to erase all data about a person, or of one source (GDPR article 17)."""

    async def request(
        self,
        project: str,
        *,
        requested_by: str,
        customer: str | None = None,
        source_id: str | None = None,
        reason: str = "",
        request: str | None = None,
    ) -> ErasureOrdered:
        """Erase all data that was published so far about ``customer``, or from ``source_id``, for good.

        Args:
            requested_by: who asks; this name stands in the proof.
            request: the number of the letter that asks. It becomes the ``erasure_id``.

        Raises:
            Refused: both or none of ``customer`` and ``source_id`` are given.
        """
        told = {
            "requested_by": requested_by, "customer": customer, "source_id": source_id, "reason": reason,
            "request": request,
        }  # fmt: skip
        return await self._order(ErasureOrdered, project, "erasures", order=told)

    async def list(self, project: str, **paging: Unpack[Paging]) -> Page[Erasure]:
        """Return a page of requests with how far each is, newest first."""
        return await self._read(Page[Erasure], project, "erasures", **paging)

    async def show(self, project: str, erasure_id: str) -> Erasure:
        """Return how far each holder of data is, and which versions and models still hold the data."""
        return await self._read(Erasure, project, "erasures", erasure_id)

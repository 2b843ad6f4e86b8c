# Generated from aio/takebacks.py by scripts/client_sync.py; change that file instead.
"""Takes data back: withdrawals of documents, and erasures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from tunewheel_contracts.api.commands import DocumentsWithdrawn, Erasure, ErasureOrdered
from tunewheel_contracts.api.paging import Page

from tunewheel_client.sync.resource import Paging, Resource


class Documents(Resource):
    """The documents that were published to a project."""

    def withdraw(
        self, project: str, documents: Sequence[str], *, reason: str = "", request: str | None = None
    ) -> DocumentsWithdrawn:
        """Keep the documents of these ids out of later dataset versions. Their texts are not erased."""
        told = {"documents": list(documents), "reason": reason, "request": request}
        return self._order(DocumentsWithdrawn, project, "withdrawals", order=told)


class Erasures(Resource):
    """Requests to erase all data about a person, or of one source (GDPR article 17)."""

    def request(
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
        return self._order(ErasureOrdered, project, "erasures", order=told)

    def list(self, project: str, **paging: Unpack[Paging]) -> Page[Erasure]:
        """Return a page of requests with how far each is, newest first."""
        return self._read(Page[Erasure], project, "erasures", **paging)

    def show(self, project: str, erasure_id: str) -> Erasure:
        """Return how far each holder of data is, and which versions and models still hold the data."""
        return self._read(Erasure, project, "erasures", erasure_id)

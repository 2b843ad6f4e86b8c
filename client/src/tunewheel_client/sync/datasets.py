# Generated from aio/datasets.py by scripts/client_sync.py; change that file instead.
"""Dataset versions."""

from __future__ import annotations

from typing import Literal, Unpack

from tunewheel_contracts.api.commands import Accepted
from tunewheel_contracts.api.datasets import DatasetDetail, DatasetDifference, DatasetSummary, Row
from tunewheel_contracts.api.paging import Page

from tunewheel_client.sync.resource import Paging, Resource

Split = Literal["train", "holdout", "preferences", "negatives"]


class Datasets(Resource):
    """The dataset versions of a project."""

    def list(
        self, project: str, *, reason: str | None = None, **paging: Unpack[Paging]
    ) -> Page[DatasetSummary]:
        """Return a page of versions, newest first; of those that were built for ``reason`` where one is
        named."""
        return self._read(Page[DatasetSummary], project, "datasets", reason=reason, **paging)

    def show(self, project: str, dataset_id: str, *, power: bool = False) -> DatasetDetail:
        """Return a version's counts and its funnel. ``power``: also simulate what its criteria can show, in
        some seconds."""
        return self._read(DatasetDetail, project, "datasets", dataset_id, power=power or None)

    def rows(
        self, project: str, dataset_id: str, *, split: Split = "train", **paging: Unpack[Paging]
    ) -> Page[Row]:
        """Return a page of a version's rows."""
        return self._read(Page[Row], project, "datasets", dataset_id, "rows", split=split, **paging)

    def tokenizer(self, project: str, dataset_id: str) -> bytes:
        """Return the files of the tokenizer with which a version's tokens were counted, as a ZIP archive.

        Raises:
            NotFound: its tokens were estimated.
        """
        return (self._transport.send("GET", "projects", project, "datasets", dataset_id, "tokenizer")).content

    def diff(self, project: str, dataset_id: str, other: str) -> DatasetDifference:
        """Return the changes from version ``dataset_id`` to version ``other``."""
        return self._read(DatasetDifference, project, "datasets", dataset_id, "diff", other)

    def build(
        self,
        project: str,
        *,
        wait: bool = True,
        patience_seconds: float = 30.0,
        request: str | None = None,
        release: str | None = None,
    ) -> Accepted:
        """Ask for a version of what was published so far. ``wait``: first let ingest make records of it, for
        ``patience_seconds`` at most. ``release``: publish this version instead, which waits for a person."""
        told = {"wait": wait, "patience_seconds": patience_seconds, "request": request, "release": release}
        return self._order(Accepted, project, "datasets", order=told, extra_seconds=patience_seconds)

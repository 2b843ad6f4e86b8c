"""Dataset versions."""

from __future__ import annotations

from typing import Literal, Unpack

from tunewheel_contracts.api.commands import Accepted
from tunewheel_contracts.api.datasets import (
    DatasetDetail,
    DatasetDifference,
    DatasetSummary,
    DroppedRecord,
    Row,
    RowTokens,
)
from tunewheel_contracts.api.paging import Page

from tunewheel_client.aio.resource import Paging, Resource

Split = Literal["train", "holdout", "preferences", "negatives"]


class Datasets(Resource):
    """The dataset versions of a project."""

    async def list(
        self, project: str, *, reason: str | None = None, **paging: Unpack[Paging]
    ) -> Page[DatasetSummary]:
        """Return a page of versions, newest first; of those that were built for ``reason`` where one is
        named."""
        return await self._read(Page[DatasetSummary], project, "datasets", reason=reason, **paging)

    async def show(self, project: str, dataset_id: str, *, power: bool = False) -> DatasetDetail:
        """Return a version's counts and its funnel. ``power``: also simulate what its criteria can show, in
        some seconds."""
        return await self._read(DatasetDetail, project, "datasets", dataset_id, power=power or None)

    async def rows(
        self,
        project: str,
        dataset_id: str,
        *,
        split: Split = "train",
        text: str | None = None,
        label: str | None = None,
        source: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[Row]:
        """Return a page of a version's rows; of those with ``text`` in a message, whatever its case, and with
        this label and source, where named."""
        asked = {"split": split, "text": text, "label": label, "source": source}
        return await self._read(Page[Row], project, "datasets", dataset_id, "rows", **asked, **paging)

    async def row(self, project: str, dataset_id: str, row_id: str) -> Row:
        """Return one row of any split."""
        return await self._read(Row, project, "datasets", dataset_id, "rows", row_id)

    async def tokens(self, project: str, dataset_id: str, row_id: str) -> RowTokens:
        """Return a row of ``train`` or ``holdout`` in tokens, and which of them are trained on.

        Raises:
            NotFound: the version was built without a tokenizer.
        """
        return await self._read(RowTokens, project, "datasets", dataset_id, "rows", row_id, "tokens")

    async def dropped(
        self,
        project: str,
        dataset_id: str,
        *,
        stage: str | None = None,
        reason: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[DroppedRecord]:
        """Return a page of the records in no row of the version; of those that ``stage`` dropped, and
        for ``reason``, where named."""
        return await self._read(
            Page[DroppedRecord],
            project,
            "datasets",
            dataset_id,
            "dropped",
            stage=stage,
            reason=reason,
            **paging,
        )

    async def tokenizer(self, project: str, dataset_id: str) -> bytes:
        """Return the files of the tokenizer with which a version's tokens were counted, as a ZIP archive.

        Raises:
            NotFound: its tokens were estimated.
        """
        return (
            await self._transport.send("GET", "projects", project, "datasets", dataset_id, "tokenizer")
        ).content

    async def diff(self, project: str, dataset_id: str, other: str) -> DatasetDifference:
        """Return the changes from version ``dataset_id`` to version ``other``."""
        return await self._read(DatasetDifference, project, "datasets", dataset_id, "diff", other)

    async def build(
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
        return await self._order(Accepted, project, "datasets", order=told, extra_seconds=patience_seconds)

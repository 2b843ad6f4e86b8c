"""``GET /v1/projects/{project}/datasets``: versions, their rows, and how two of them differ."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from tunewheel_contracts.api.datasets import (
    DatasetDetail,
    DatasetDifference,
    DatasetSummary,
    DroppedRecord,
    LabelCounts,
    Power,
    Row,
    RowTokens,
)
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import BuildReason, DatasetVersioned
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.control.dataset_files import (
    NAMES,
    UNNAMED,
    DatasetFiles,
    Version,
    compare,
    erased_of,
    records_of,
    search,
)
from tunewheel_console.control.declarations import find_power
from tunewheel_console.control.evaluations import last_scorecard
from tunewheel_console.control.files import DATASETS, Tokens
from tunewheel_console.control.paging import Paged, page_by_number, page_of
from tunewheel_console.control.resolving import View, dataset_of
from tunewheel_console.project import Project

Split = Literal["train", "holdout", "preferences", "negatives"]
Made = Envelope[DatasetVersioned]


def add_datasets(web: FastAPI, store: ObjectStore) -> None:
    files, tokens = DatasetFiles(store), Tokens(store)

    @web.get(DATASETS)
    @needs(Role.VIEWER)
    async def list_datasets(
        view: View, asked: Paged, reason: BuildReason | None = None
    ) -> Page[DatasetSummary]:
        """The dataset versions, newest first."""
        runs = _runs_by_dataset(view)
        found = [one for one in view.datasets.values() if reason in (None, one.data.reason)]
        return page_of(found, asked, place=_place, answer=lambda one: DatasetSummary(**_fields(one, runs)))

    @web.get(DATASETS + "/{dataset_id}")
    @needs(Role.VIEWER)
    async def show_dataset(
        view: View,
        dataset_id: str,
        power: Annotated[
            bool, Query(description="Simulate what the criteria can show on its held-out rows: seconds.")
        ] = False,
    ) -> DatasetDetail:
        """A version with its manifest, and what became of every record on the way to it."""
        made = dataset_of(view, dataset_id)
        version = await files.open(view, made.data.dataset_id)
        gone = version.rows_deleted
        labels = {} if gone else await files.labels(version)
        return DatasetDetail(
            **_fields(made, _runs_by_dataset(view)),
            funnel=made.data.funnel,
            missing_records=made.data.missing_records,
            manifest=version.manifest,
            labels={name: LabelCounts(train=one, holdout=other) for name, (one, other) in labels.items()},
            rows_deleted=gone,
            rows_hidden=UNNAMED if version.erased is None else None,
            power=await _power(view, version) if power else None,
        )

    @web.get(DATASETS + "/{dataset_id}/rows")
    @needs(Role.VIEWER)
    async def list_rows(
        view: View,
        dataset_id: str,
        asked: Paged,
        split: Split = "train",
        text: Annotated[
            str | None, Query(max_length=500, description="Part of a message, in any case.")
        ] = None,
        label: str | None = None,
        source: str | None = None,
    ) -> Page[Row]:
        """The rows of a split, in the order of its file. Rows of erased records have no texts."""
        version = await files.open(view, dataset_of(view, dataset_id).data.dataset_id)
        erased = erased_of(version)
        frame = await files.frame(version, split)
        found = await asyncio.to_thread(search, frame, erased, text=text, label=label, source=source)

        def shown(begin: int, end: int) -> list[Row]:
            return [_row(row, erased, split) for row in found[begin:end].iter_rows(named=True)]

        return page_by_number(found.height, asked, shown)

    @web.get(DATASETS + "/{dataset_id}/rows/{row_id}")
    @needs(Role.VIEWER)
    async def show_row(view: View, dataset_id: str, row_id: str) -> Row:
        """One row of any split."""
        version = await files.open(view, dataset_of(view, dataset_id).data.dataset_id)
        return _row(*await files.find_row(version, row_id))

    @web.get(DATASETS + "/{dataset_id}/rows/{row_id}/tokens")
    @needs(Role.VIEWER)
    async def show_row_tokens(view: View, dataset_id: str, row_id: str) -> RowTokens:
        """A row of ``train`` or ``holdout`` in tokens, and which of them are trained on."""
        version = await files.open(view, dataset_of(view, dataset_id).data.dataset_id)
        row, erased, split = await files.find_row(version, row_id)
        if "messages" not in row or not erased.isdisjoint(records_of(row)):
            raise Refused(
                HTTPStatus.NOT_FOUND,
                "row_id",
                "tokens are shown of train and holdout, while a row has its texts",
            )
        return await tokens.of_row(version.manifest, row, split)

    @web.get(DATASETS + "/{dataset_id}/dropped")
    @needs(Role.VIEWER)
    async def list_dropped(
        view: View, dataset_id: str, asked: Paged, stage: str | None = None, reason: str | None = None
    ) -> Page[DroppedRecord]:
        """The records that are in no row of the version, and why."""
        version = await files.open(view, dataset_of(view, dataset_id).data.dataset_id)
        found = search(
            await files.dropped(version), erased_of(version), text=None, stage=stage, reason=reason
        )

        def shown(begin: int, end: int) -> list[DroppedRecord]:
            return [DroppedRecord(**row) for row in found[begin:end].iter_rows(named=True)]

        return page_by_number(found.height, asked, shown)

    @web.get(DATASETS + "/{dataset_id}/diff/{other}")
    @needs(Role.VIEWER)
    async def compare_datasets(view: View, dataset_id: str, other: str) -> DatasetDifference:
        """What changed from ``dataset_id`` to ``other``."""
        one, another = [
            await files.open(view, dataset_of(view, name, field=field).data.dataset_id)
            for field, name in (("dataset_id", dataset_id), ("other", other))
        ]
        return await compare(files, one, another)

    async def _power(view: Project, version: Version) -> Power | None:
        sizes = None if version.rows_deleted else await files.customers(version)
        return await find_power(version.manifest.spec, sizes, card=await last_scorecard(view, store))


def _runs_by_dataset(project: Project) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for run in project.runs.values():
        found[run.dataset_id] = (*found.get(run.dataset_id, ()), run.run_id)
    return found


def _fields(made: Made, runs: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    data = made.data
    same = ("dataset_id", "project", "counts", "base_model", "preliminary", "previous", "index_id")
    return {
        **{name: getattr(data, name) for name in same},
        "created_at": made.time,
        "reason": data.reason.value,
        "runs": runs.get(data.dataset_id, ()),
    }


def _row(row: Mapping[str, Any], erased: frozenset[str], split: str) -> Row:
    records = records_of(row)
    name = next(row[key] for key in NAMES if key in row)
    if not erased.isdisjoint(records):
        return Row(row_id=name, trust=row["trust"], record_ids=records, erased=True, split=split)
    same = ("chosen", "rejected", "label", "group", "trust", "format", "source", "language")
    messages = row["messages"] if "messages" in row else row["prompt"]
    return Row(
        row_id=name,
        messages=messages,
        record_ids=records,
        split=split,
        **{key: row[key] for key in same if key in row},
    )


def _place(made: Made) -> tuple[datetime, str]:
    return made.time, made.data.dataset_id

"""Reads dataset versions from the object store, without the texts of erased records, and compares two."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.event import decode_data
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.erasure import ErasureFinding
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ArtifactMissing, ObjectStore

from tunewheel_console.project import Project

if TYPE_CHECKING:
    import polars as pl
from tunewheel_contracts.api.datasets import DatasetDifference
from tunewheel_contracts.changes import Change, changes

NAMES = ("example_id", "pair_id", "negative_id")
"""The columns with a row's id; each split has one of them."""
UNNAMED = "was touched by an erasure that does not name the records, so no row is shown"
KEPT_SECONDS = 30.0
"""How long the rows that were read last stay in memory, for the pages that follow."""


@dataclass(frozen=True, slots=True)
class Version:
    """A dataset version."""

    manifest: DatasetManifest
    erased: frozenset[str] | None
    """The ids of records that were erased after it was built. None: an erasure does not name them, so no row
    can be shown."""
    rows_deleted: bool
    """Whether an erasure deleted its rows."""


class DatasetFiles:
    """The versions in a store. Their files never change, but an erasure may delete them."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._last: tuple[str, pl.DataFrame] | None = None
        """The hash of the file that was read last, and its rows."""

    async def open(self, project: Project, dataset_id: str) -> Version:
        """Return the version, of which the project's events tell. Raises Refused: 410, the manifest is gone.
        TransientError: the store is away."""
        ref = project.datasets[dataset_id].data.manifest
        try:
            manifest = decode_data(DatasetManifest, await self._store.get(ref))
        except ArtifactMissing as error:
            raise Refused(HTTPStatus.GONE, "dataset_id", f"{dataset_id} is gone from the store") from error
        of_version = [one for one in project.erasures.values() if dataset_id in one.dataset_ids]
        deleted = any(dataset_id in one.deleted_dataset_ids for one in of_version)
        erased = frozenset[str]() if deleted else await self._erased(one.finding for one in of_version)
        return Version(manifest, erased, deleted)

    async def _erased(self, findings: Iterable[ArtifactRef | None]) -> frozenset[str] | None:
        found: set[str] = set()
        for ref in findings:
            data = await self._store.read(ref.path) if ref is not None else None
            finding = decode_data(ErasureFinding, data) if data is not None else None
            if finding is None or (finding.records and not finding.record_ids):
                return None
            found |= {*finding.record_ids}
        return frozenset(found)

    async def frame(self, version: Version, split: str) -> pl.DataFrame:
        """Return the rows of a split. Raises Refused: 410, an erasure deleted the rows; 404, the version has
        no such split. TransientError: the store is away."""
        ref: ArtifactRef | None = getattr(version.manifest, split)
        if ref is None:
            raise Refused(HTTPStatus.NOT_FOUND, "split", f"{version.manifest.dataset_id} has no {split}")
        if version.rows_deleted:
            raise _deleted(version)
        if self._last is not None and self._last[0] == ref.sha256:
            return self._last[1]
        import polars as pl

        try:
            data = await self._store.get(ref)
        except ArtifactMissing as error:
            raise _deleted(version) from error
        frame = await asyncio.to_thread(pl.read_parquet, BytesIO(data))
        if "messages" in frame.columns and "label" not in frame.columns:  # a row needs no label
            frame = frame.with_columns(pl.lit(None, pl.String).alias("label"))
        self._last = ref.sha256, frame
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self._drop, ref.sha256)
        return frame

    async def find_row(self, version: Version, row_id: str) -> tuple[dict[str, Any], frozenset[str], str]:
        """Return a row, the ids of the version's erased records, and the row's split. Raises as ``frame``."""
        import polars as pl

        for split in ("train", "holdout", "preferences", "negatives"):
            if getattr(version.manifest, split) is not None:
                frame = await self.frame(version, split)
                name = next(one for one in NAMES if one in frame.columns)
                for row in frame.filter(pl.col(name) == row_id).iter_rows(named=True):
                    return row, erased_of(version), split
        raise Refused(HTTPStatus.NOT_FOUND, "row_id", f"{version.manifest.dataset_id} has no row {row_id!r}")

    def _drop(self, sha256: str) -> None:
        if self._last is not None and self._last[0] == sha256:
            self._last = None

    async def dropped(self, version: Version) -> pl.DataFrame:
        """Return the records that the version left out: record_id, kind, stage and reason. Raises as
        ``frame``."""
        import polars as pl

        ref, columns = version.manifest.lineage, ["record_id", "kind", "stage", "reason"]
        if ref is None:  # of an earlier release
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        data = await self._store.read(ref.path)
        if data is None:
            raise _deleted(version)
        found = await asyncio.to_thread(pl.read_parquet, BytesIO(data), columns=columns)
        return found.filter(pl.col("stage").is_not_null() & pl.col("reason").is_not_null())

    async def labels(self, version: Version) -> dict[str, tuple[int, int]]:
        """Return the number of rows by label, in ``train`` and in ``holdout``. Raises as ``frame``."""
        counted = [
            Counter((await self.frame(version, split))["label"].drop_nulls().to_list())
            for split in ("train", "holdout")
        ]
        train, holdout = counted
        return {label: (train[label], holdout[label]) for label in sorted(train | holdout)}

    async def customers(self, version: Version) -> tuple[int, ...]:
        """Return the number of held-out rows of each customer. Raises as ``frame``."""
        return tuple(Counter((await self.frame(version, "holdout"))["group"].to_list()).values())


def search(
    frame: pl.DataFrame, erased: frozenset[str], *, text: str | None, **fields: str | None
) -> pl.DataFrame:
    """Return the rows of a split that hold ``text`` in a message, whatever its case, and have these
    ``fields``. Texts of erased records are not searched."""
    import polars as pl

    found = frame
    for name, value in fields.items():
        if value is not None:
            found = found.filter(pl.col(name) == value) if name in frame.columns else found.clear()
    if not text:
        return found
    turns = "messages" if "messages" in frame.columns else "prompt"
    holds = pl.col(turns).list.eval(_holds(pl.element().struct.field("content"), text)).list.any()
    for name in ("chosen", "rejected"):
        holds = holds | _holds(pl.col(name), text) if name in frame.columns else holds
    if "record_ids" in frame.columns:
        gone = pl.col("record_ids").list.eval(pl.element().is_in([*erased])).list.any()
    else:
        gone = pl.col("record_id").is_in([*erased])
    return found.filter(holds & ~gone)


def _holds(texts: pl.Expr, text: str) -> pl.Expr:
    return texts.str.to_lowercase().str.contains(text.lower(), literal=True)


def erased_of(version: Version) -> frozenset[str]:
    """Return the ids of the erased records. Raises Refused: 410, an erasure does not name them."""
    if version.erased is None:
        raise Refused(HTTPStatus.GONE, "dataset_id", UNNAMED)
    return version.erased


def records_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ids of the records behind a row of any split."""
    return tuple(row.get("record_ids") or ([row["record_id"]] if row.get("record_id") else []))


def _deleted(version: Version) -> Refused:
    reason = f"the rows of {version.manifest.dataset_id} were deleted by an erasure"
    return Refused(HTTPStatus.GONE, "dataset_id", reason)


SHOWN_QUESTIONS = 5
_EXCERPT = 80


async def compare(files: DatasetFiles, one: Version, other: Version) -> DatasetDifference:
    """Compare two versions. Rows of erased records count, and their questions are not shown. Raises Refused:
    the rows were deleted, or an erasure does not say which they are. TransientError: the store is away."""
    before, after = await _rows(files, one), await _rows(files, other)
    questions = {q: a for q, a in before.answers.items() if after.answers.get(q, a) != a}
    both = before.splits.keys() & after.splits.keys()
    moves = Counter(
        f"{before.splits[name]} → {after.splits[name]}"
        for name in both
        if before.splits[name] != after.splits[name]
    )
    return DatasetDifference(
        before=one.manifest.dataset_id,
        after=other.manifest.dataset_id,
        counts=changes(
            one.manifest.counts.model_dump(mode="json"), other.manifest.counts.model_dump(mode="json")
        ),
        added=_by_split(after.splits, before.splits),
        removed=_by_split(before.splits, after.splits),
        moved=dict(sorted(moves.items())),
        answers_changed=len(questions),
        changed_questions=tuple(sorted(_excerpt(q) for q in questions)[:SHOWN_QUESTIONS]),
        labels=changes(before.labels, after.labels),
        funnel=_funnel_changes(one, other),
        spec=changes(one.manifest.spec.model_dump(mode="json"), other.manifest.spec.model_dump(mode="json")),
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    splits: dict[str, str]
    answers: dict[str, str]
    labels: dict[str, int]


async def _rows(files: DatasetFiles, version: Version) -> _Rows:
    splits: dict[str, str] = {}
    answers: dict[str, str] = {}
    labels: Counter[str] = Counter()
    erased = erased_of(version)
    for split in ("train", "holdout"):
        frame = await files.frame(version, split)
        for row in frame.select("example_id", "label", "messages", "record_ids").iter_rows(named=True):
            splits[row["example_id"]] = split
            if split == "train" and row["label"] is not None:
                labels[row["label"]] += 1
            if erased.isdisjoint(records_of(row)):
                *asked, answer = row["messages"]
                question = "\n".join(turn["content"] for turn in asked if turn["role"] != "system")
                answers[question] = answer["content"]
    return _Rows(splits, answers, dict(sorted(labels.items())))


def _by_split(here: Mapping[str, str], there: Mapping[str, str]) -> dict[str, int]:
    return dict(sorted(Counter(split for name, split in here.items() if name not in there).items()))


def _funnel_changes(one: Version, other: Version) -> dict[str, dict[str, Change]]:
    def figures(version: Version) -> dict[str, dict[str, int]]:
        return {
            stage.stage: {"entered": stage.entered, "left": stage.left, **stage.reasons}
            for stage in version.manifest.funnel
        }

    before, after = figures(one), figures(other)
    found = {name: changes(before.get(name, {}), after.get(name, {})) for name in {**before, **after}}
    return {name: changed for name, changed in found.items() if changed}


def _excerpt(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _EXCERPT else words[: _EXCERPT - 1] + "…"

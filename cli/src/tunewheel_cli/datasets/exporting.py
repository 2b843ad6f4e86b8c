"""Exports a dataset version for other tools: as JSON Lines, Parquet, or Hugging Face ``datasets``."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import TunewheelError

if TYPE_CHECKING:
    from tunewheel_client import Client
    from tunewheel_contracts.api.datasets import DatasetDetail, Row
    from tunewheel_contracts.formats.dataset import DatasetManifest


PAGE_ROWS = 1_000
SPLITS = ("train", "holdout", "preferences", "negatives")


class ExportFormat(StrEnum):
    JSONL = "jsonl"
    PARQUET = "parquet"
    HF = "hf"


class FolderTaken(TunewheelError):
    """The folder to export to is not empty."""


class FolderUnusable(TunewheelError):
    """The folder to export to cannot be written."""


def check_folder(folder: Path) -> None:
    """Check that an export can write to ``folder``.

    Raises:
        FolderTaken: ``folder`` is not empty, or is no folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderTaken(f"{folder} is not an empty folder; name another, or empty it")


def write_version(
    client: Client,
    found: DatasetDetail,
    folder: Path,
    form: ExportFormat,
    *,
    on_step: Callable[[str, int, int], None],
) -> dict[str, int]:
    """Write the rows of each split and the manifest to ``folder``; return the number of rows by split.

    ``on_step`` is called with each split's name, its place and the number of splits. ``hf`` writes a
    folder for ``datasets.load_from_disk``; splits with other columns than examples get folders of their own.

    Raises:
        FolderUnusable: the folder cannot be written, or the disk is full.
    """
    splits: dict[str, list[dict[str, Any]]] = {}
    names = [name for name in SPLITS if getattr(found.manifest, name) is not None]
    for place, name in enumerate(names):
        on_step(f"read {name}", place, len(names))
        splits[name] = [_as_written(row, name) for row in rows_of(client, found.manifest, name)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if form is ExportFormat.HF:
            _save_to_disk(splits, folder)
        else:
            for name, rows in splits.items():
                _write(rows, folder / f"{name}.{form.value}", form)
        (folder / "manifest.json").write_text(found.manifest.model_dump_json(indent=2) + "\n", "utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise FolderUnusable(
            f"--to: {folder} cannot be written ({reason}); make room, or name another folder"
        ) from error
    return {name: len(rows) for name, rows in splits.items()}


def rows_of(client: Client, manifest: DatasetManifest, split: str) -> list[Row]:
    """Return the rows of a split without those of erased records; none if the version has no such split."""
    if getattr(manifest, split) is None:
        return []
    named: Any = {"split": split, "limit": PAGE_ROWS}
    told = client.each(client.datasets.rows, manifest.project, manifest.dataset_id, **named)
    return [row for row in told if not row.erased]


def _as_written(row: Row, split: str) -> dict[str, Any]:
    """Return a row as the file of its split has it."""
    told = row.model_dump(mode="json", exclude={"row_id", "erased", "chosen", "rejected"})
    if split in ("train", "holdout"):
        return {"example_id": row.row_id, **told}
    named = (
        {"pair_id": row.row_id, "chosen": row.chosen}
        if row.chosen is not None
        else {"negative_id": row.row_id}
    )
    return {
        **named, "prompt": told["messages"], "rejected": row.rejected, "group": row.group, "trust": row.trust,
        "record_id": row.record_ids[0],
    }  # fmt: skip


def _write(rows: list[dict[str, Any]], path: Path, form: ExportFormat) -> None:
    if form is ExportFormat.PARQUET:
        import polars as pl

        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path, compression="zstd")
        return
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _save_to_disk(splits: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    made: Any = {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
    others = {name: made.pop(name) for name in ("preferences", "negatives") if name in made}
    datasets.DatasetDict(made).save_to_disk(str(folder))
    for name, rows in others.items():
        rows.save_to_disk(str(folder / name))

"""Exports a dataset version for other tools: as JSON Lines, Parquet, or Hugging Face ``datasets``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import TunewheelError

if TYPE_CHECKING:
    import polars as pl
    from tunewheel_contracts.fields import ArtifactRef

    from tunewheel_cli.datasets.versions import Version


class ExportFormat(StrEnum):
    JSONL = "jsonl"
    PARQUET = "parquet"
    HF = "hf"


class FolderTaken(TunewheelError):
    """The folder to export to is not empty."""


class FolderUnusable(TunewheelError):
    """The folder to export to cannot be written."""


@dataclass(frozen=True)
class Contents:
    """The contents of an export."""

    frames: dict[str, pl.DataFrame]
    """The rows by split. The version may also have ``preferences`` and ``negatives``."""
    manifest: str
    card: str | None


async def read_contents(version: Version) -> Contents:
    """Read a version from its store.

    Raises:
        ArtifactMissing, CorruptArtifact, TransientError: the store does not hold the rows.
    """
    manifest = version.manifest
    files: dict[str, ArtifactRef] = {"train": manifest.train, "holdout": manifest.holdout}
    for name, ref in (("preferences", manifest.preferences), ("negatives", manifest.negatives)):
        if ref is not None:
            files[name] = ref
    return Contents(
        frames={name: await version.frame(ref) for name, ref in files.items()},
        manifest=manifest.model_dump_json(indent=2) + "\n",
        card=await version.text(manifest.card) if manifest.card is not None else None,
    )


def check_folder(folder: Path) -> None:
    """Check that an export can write to ``folder``.

    Raises:
        FolderTaken: ``folder`` is not empty, or is no folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderTaken(f"--to: {folder} is not an empty folder; name another, or empty it")


def write_contents(
    contents: Contents, folder: Path, form: ExportFormat, *, on_rows: Callable[[str, int], None]
) -> dict[str, int]:
    """Write a version to ``folder``; return the rows of each split.

    ``on_rows`` is called with a split's name and number of rows after it was written. ``hf`` writes a folder
    for ``datasets.load_from_disk``; splits with other columns than examples get folders of their own.

    Raises:
        FolderUnusable: the folder cannot be written, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_all(contents, folder, form, on_rows)
    except OSError as error:
        reason = error.strerror or error
        raise FolderUnusable(
            f"--to: {folder} cannot be written ({reason}); make room, or name another folder"
        ) from error
    return {name: frame.height for name, frame in contents.frames.items()}


def _write_all(
    contents: Contents, folder: Path, form: ExportFormat, on_rows: Callable[[str, int], None]
) -> None:
    for name, frame in contents.frames.items():
        if form is not ExportFormat.HF:
            _write(frame, folder / f"{name}.{form.value}", form)
        on_rows(name, frame.height)
    if form is ExportFormat.HF:
        _save_to_disk(contents.frames, folder)
    (folder / "manifest.json").write_text(contents.manifest, "utf-8")
    if contents.card is not None:
        (folder / "card.md").write_text(contents.card, "utf-8")


def _write(frame: pl.DataFrame, path: Path, form: ExportFormat) -> None:
    if form is ExportFormat.PARQUET:
        frame.write_parquet(path, compression="zstd")
        return
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for row in frame.iter_rows(named=True):
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _save_to_disk(frames: dict[str, pl.DataFrame], folder: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    splits: Any = {name: datasets.Dataset.from_polars(frame) for name, frame in frames.items()}
    others = {name: splits.pop(name) for name in ("preferences", "negatives") if name in splits}
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    for name, rows in others.items():
        rows.save_to_disk(str(folder / name))

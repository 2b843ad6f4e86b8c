"""dataset export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Dataset, Project, calling
from tunewheel_cli.datasets.exporting import ExportFormat


@calling
def command(
    call: Call,
    dataset_id: Dataset,
    project: Project,
    to: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="./DATASET_ID")] = None,
    form: Annotated[
        ExportFormat,
        typer.Option("--format", help="jsonl, parquet, or hf: a folder for datasets.load_from_disk."),
    ] = ExportFormat.JSONL,
) -> None:
    """Write a version's rows and manifest to a folder, for other tools. Rows of erased records are left
    out."""
    from tunewheel_cli.commands.progress import rows_bar
    from tunewheel_cli.datasets.exporting import check_folder, write_version

    found = call.client.datasets.show(project, dataset_id)
    folder = to or Path(found.dataset_id)
    check_folder(folder)  # only once the id is known, because it may give the folder its name
    counts = found.counts
    with rows_bar(silent=call.as_json) as bar:
        bar.expect(counts.train + counts.holdout + counts.preferences + counts.negatives)
        rows = write_version(call.client, found, folder, form, on_rows=bar.note)
    listed = ", ".join(f"{count:,} {name}" for name, count in rows.items())
    written = {
        "dataset_id": found.dataset_id, "folder": str(folder.resolve()), "format": form.value, "rows": rows,
    }  # fmt: skip
    call.show(written, f"wrote {listed} to {folder}")

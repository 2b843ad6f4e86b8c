"""dataset show, diff, export: dataset versions in the object store."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewheel_cli.datasets.exporting import ExportFormat
from tunewheel_cli.reach import Reach, Store, reaching

if TYPE_CHECKING:
    from tunewheel_cli.datasets.exporting import Contents
    from tunewheel_cli.datasets.versions import Version

Dataset = Annotated[str, typer.Argument(help="A version, such as ds-0a1b2c….", show_default=False)]


@reaching
async def show(reach: Reach, dataset_id: Dataset, store: Store = None) -> None:
    """Show what a version holds, and what became of every record on the way to it."""
    from tunewheel_cli.datasets.tables import print_version
    from tunewheel_cli.datasets.versions import customers_of, open_version
    from tunewheel_cli.evaluations import last_scorecard
    from tunewheel_cli.power_tables import find_power, power_as_json, power_lines

    version = await open_version(dataset_id, store or reach.var.store_url)
    manifest, labels = version.manifest, await _labels(version)
    card = await last_scorecard(version.store, manifest.project)
    sizes = await customers_of(version)
    power = await asyncio.to_thread(find_power, manifest.spec, sizes, card=card, silent=reach.as_json)
    described = manifest.model_dump(mode="json") | {"labels": labels, "power": power_as_json(power)}

    def show() -> None:
        print_version(manifest, labels=labels)
        print("\n".join(power_lines(power)))

    reach.show(described, show)


async def _labels(version: Version) -> dict[str, tuple[int, int]]:
    counted: list[Counter[str]] = []
    for ref in (version.manifest.train, version.manifest.holdout):
        labels = (await version.frame(ref))["label"].drop_nulls().to_list()
        counted.append(Counter(labels))
    train, holdout = counted
    return {label: (train[label], holdout[label]) for label in sorted(train | holdout)}


@reaching
async def diff(
    reach: Reach,
    before: Dataset,
    after: Annotated[str, typer.Argument(help="The version to compare it with.", show_default=False)],
    store: Store = None,
) -> None:
    """Show what changed from one version to another: examples, answers, labels, stages, spec."""
    from tunewheel_cli.datasets.comparing import compare
    from tunewheel_cli.datasets.tables import print_difference
    from tunewheel_cli.datasets.versions import open_version

    url = store or reach.var.store_url
    found = await compare(await open_version(before, url), await open_version(after, url))
    reach.show(found.as_json(), lambda: print_difference(found))


@reaching
def export(
    reach: Reach,
    dataset_id: Dataset,
    to: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="./DATASET_ID")] = None,
    form: Annotated[
        ExportFormat,
        typer.Option("--format", help="jsonl, parquet, or hf: a folder for datasets.load_from_disk."),
    ] = ExportFormat.JSONL,
    store: Store = None,
) -> None:
    """Write a version's rows, manifest and card to a folder, for other tools."""
    from tunewheel_local.kafka.broker import run_async

    from tunewheel_cli.commands.progress import Rows, rows_bar
    from tunewheel_cli.datasets.exporting import check_folder, read_contents, write_contents
    from tunewheel_cli.datasets.versions import open_version

    folder = to or Path(dataset_id)

    async def read(bar: Rows) -> Contents:
        version = await open_version(dataset_id, store or reach.var.store_url)
        check_folder(folder)  # only once the id is known, because it may give the folder its name
        counts = version.manifest.counts
        bar.expect(counts.train + counts.holdout + counts.preferences + counts.negatives)
        return await read_contents(version)

    with rows_bar(silent=reach.as_json) as bar:
        rows = write_contents(run_async(read(bar)), folder, form, on_rows=bar.note)
    listed = ", ".join(f"{count:,} {name}" for name, count in rows.items())
    written = {"dataset_id": dataset_id, "folder": str(folder.resolve()), "format": form.value, "rows": rows}
    reach.show(written, f"wrote {listed} to {folder}")

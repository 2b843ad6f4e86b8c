"""The commands about dataset versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewheel_cli.calling import Call, Dataset, Project, Request, Timeout, calling, settle
from tunewheel_cli.datasets.exporting import ExportFormat
from tunewheel_cli.listing import listing
from tunewheel_cli.texts import flat, print_table

if TYPE_CHECKING:
    from tunewheel_contracts.api.datasets import DatasetDetail, DatasetDifference
    from tunewheel_contracts.changes import Change

list_ = listing(
    "datasets",
    "List the dataset versions of a project.",
    "{project} has no dataset version yet",
    {
        "dataset": "dataset_id", "built": "created_at", "because of": "reason", "train": "counts.train",
        "held out": "counts.holdout", "preferences": "counts.preferences", "runs": "runs",
    },
)  # fmt: skip


@calling
def show(call: Call, dataset_id: Dataset, project: Project) -> None:
    """Show what a version holds, and what became of every record on the way to it."""
    from tunewheel_cli.power_tables import power_lines

    found = call.client.datasets.show(project, dataset_id, power=True)

    def tell() -> None:
        print_version(found)
        if found.power is not None:
            print("\n".join(power_lines(found.power)))

    call.show(found, tell)


@calling
def diff(
    call: Call,
    before: Dataset,
    after: Annotated[str, typer.Argument(help="The version to compare it with.", show_default=False)],
    project: Project,
) -> None:
    """Show what changed from one version to another: examples, answers, labels, stages, spec."""
    found = call.client.datasets.diff(project, before, after)
    call.show(found, lambda: print_difference(found))


@calling
def export(
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
    from tunewheel_cli.commands.progress import steps_bar
    from tunewheel_cli.datasets.exporting import check_folder, write_version

    found = call.client.datasets.show(project, dataset_id)
    folder = to or Path(found.dataset_id)
    check_folder(folder)  # only once the id is known, because it may give the folder its name
    with steps_bar(silent=call.as_json) as note:
        rows = write_version(call.client, found, folder, form, on_step=note)
    listed = ", ".join(f"{count:,} {name}" for name, count in rows.items())
    written = {
        "dataset_id": found.dataset_id, "folder": str(folder.resolve()), "format": form.value, "rows": rows,
    }  # fmt: skip
    call.show(written, f"wrote {listed} to {folder}")


@calling
def build(
    call: Call,
    project: Project,
    wait: Annotated[
        bool, typer.Option(help="First wait until ingest has read all that was published so far.")
    ] = True,
    release: Annotated[
        str | None, typer.Option(help="Publish this version, which waits because it misses expectations.")
    ] = None,
    request: Request = None,
    timeout: Timeout = 120.0,
) -> None:
    """Ask for a new dataset version now, whatever the build policy says, and wait until curate has it.

    It holds everything that was published before the command.
    """
    accepted = call.writer.datasets.build(project, wait=wait, request=request, release=release)
    command = settle(call, project, accepted, timeout)
    call.show(
        command or accepted,
        f"asked for a dataset of {project}; follow it with `tunewheel watch --project {project}`",
    )


def print_version(found: DatasetDetail) -> None:
    """Print what a version holds, and what became of every record on the way to it."""
    counts, manifest = found.counts, found.manifest
    print(f"{found.dataset_id}  {found.project}, for {found.base_model}")
    print(
        f"{counts.examples:,} examples of {counts.records:,} records: {counts.train:,} rows to train on "
        f"({counts.replay:,} replayed), {counts.holdout:,} held out, {counts.preferences:,} preference pairs"
        + (f", {counts.negatives:,} answers rated down" if counts.negatives else "")
    )
    if found.preliminary:
        print(f"preliminary: {flat(found.preliminary)}")
    if found.rows_deleted:
        print("its rows were deleted by an erasure")
    print(f"follows {found.previous}" if found.previous else "the project's first")
    if manifest.data_docs:
        print(f"Data Docs: {manifest.data_docs}")
    stages = [
        (stage.stage, stage.entered, stage.left, [f"{why} {count:,}" for why, count in stage.reasons.items()])
        for stage in found.funnel
    ]
    print_table(("stage", "in", "out", "why the rest is not"), stages)
    if found.labels:
        rows = [(label, one.train, one.holdout) for label, one in found.labels.items()]
        print_table(("label", "train", "holdout"), rows)
    if (use := manifest.replay) is not None:
        print(
            f"replay: {use.sampled:,} of {use.available:,} conversations of {use.source} "
            f"({use.share:.1%} of training; licence {use.license or 'not stated'})"
        )


def print_difference(found: DatasetDifference) -> None:
    """Print what changed."""
    print(f"{found.before} → {found.after}")
    if found.is_none:
        print("nothing differs")
        return
    rows = [
        (name, figures.get("train", 0), figures.get("holdout", 0))
        for name, figures in (("added", found.added), ("removed", found.removed))
    ]
    print_table(("examples", "train", "holdout"), rows)
    for move, count in found.moved.items():
        print(f"moved {move}: {count:,}")
    if found.answers_changed:
        print(f"answers changed: {found.answers_changed:,}")
        for question in found.changed_questions:
            print(f"  {flat(question)}")
    for title, changes in (("count", found.counts), ("label", found.labels), ("spec", found.spec)):
        _print_changes(title, changes)
    for stage, changes in found.funnel.items():
        _print_changes(f"stage {stage}", changes)


def _print_changes(title: str, changes: Mapping[str, Change]) -> None:
    if changes:
        rows = [(name, _cell(before), _cell(after)) for name, (before, after) in changes.items()]
        print_table((title, "before", "after"), rows)


def _cell(value: Any) -> str:
    return "-" if value is None else flat(value)

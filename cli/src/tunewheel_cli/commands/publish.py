"""publish: publishes files, folders, repositories and object stores."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewheel_cli.calling import SPEC_FILE, Call, InvalidOption, calling, named_project
from tunewheel_cli.exits import Exit, print_json
from tunewheel_cli.publishing.items import Kind

if TYPE_CHECKING:
    from tunewheel_cli.publishing.publish import Summary
    from tunewheel_cli.publishing.watching import Step

SHOWN_REFUSALS = 20


@calling
def publish(
    call: Call,
    path: Annotated[
        str,
        typer.Argument(
            help="A file of records (CSV, TSV, XLSX, JSON, JSON Lines, also .gz), a document, a folder of "
            "documents, a repository, or a URL such as s3://bucket/prefix."
        ),
    ],
    project: Annotated[
        str | None,
        typer.Option("--project", "-p", help="The project; --check needs none.", callback=named_project),
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="What each record is; else its id field tells.")] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="column=field, or key=field of JSON; a dotted field makes an object "
            "(category=output.category), a dotted key looks into one.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Publish nothing: count, and say what is wrong. Needs no wheel.")
    ] = False,
    watch: Annotated[bool, typer.Option(help="Follow a folder: publish what is new or changed.")] = False,
    withdraw_deleted: Annotated[
        bool,
        typer.Option(
            "--withdraw-deleted",
            help="With --watch: withdraw documents that are deleted, since the last watch, too.",
        ),
    ] = False,
    validated_by: Annotated[
        str | None,
        typer.Option(
            "--validated-by",
            help="The expert who checked the answers, for those that name no expert.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Map the file's records by this source of project.yaml here, or by a mapping that comes "
            "with Tunewheel, such as zendesk; `tunewheel source test` shows the result first.",
        ),
    ] = None,
    allowed_group: Annotated[
        list[str] | None,
        typer.Option(help="Only callers with this group see passages of the documents. Repeatable."),
    ] = None,
) -> None:
    """Publish tickets, examples or documents.

    Lines that are wrong are listed with line and field, all others are published (exit code 3). Publishing
    the same file again, after a crash for instance, doubles nothing: ids follow from content. Of a folder
    hidden, vendored and git-ignored files are left out.
    """
    if source and (check or watch or kind or map_):
        raise InvalidOption(
            "--source: takes no --check, --watch, --kind or --map; see `tunewheel source test`"
        )
    if check:
        from tunewheel_cli.commands.checking import check as check_path

        if check_path(Path(path), kind, map_ or [], as_json=call.as_json):
            raise typer.Exit(Exit.REFUSED)
        return
    if withdraw_deleted and not watch:
        raise InvalidOption("--withdraw-deleted: is for --watch; add it, or use `tunewheel withdraw`")
    if validated_by and watch:
        raise InvalidOption("--validated-by: is for answers, and --watch publishes documents; leave it out")
    named = call.project_or_default(project)
    if watch:
        if not Path(path).is_dir():
            raise InvalidOption(f"--watch: {path} is no folder; give the folder to follow")
        asyncio.run(_watch(call, path, named, withdraw_deleted, allowed_group or ()))
        return
    summary = asyncio.run(
        _publish(call, path, named, kind, map_ or [], validated_by or None, allowed_group or (), source)
    )
    call.show(summary.as_json(), lambda: print_summary(summary))
    if summary.refused:
        raise typer.Exit(Exit.REFUSED)


async def _publish(
    call: Call,
    path: str,
    project: str,
    kind: Kind | None,
    maps: list[str],
    validated_by: str | None,
    allowed_groups: Sequence[str],
    source: str | None,
) -> Summary:
    from tunewheel_cli.commands.progress import published_bar
    from tunewheel_cli.publishing.door import IngestDoor
    from tunewheel_cli.publishing.mapped import source_of
    from tunewheel_cli.publishing.publish import publish_path
    from tunewheel_cli.publishing.remote import is_url, publish_url

    chosen = None if source is None else source_of(source, Path(SPEC_FILE))
    door = IngestDoor(call.writer, allowed_groups)
    with published_bar(silent=call.as_json) as note:
        if not is_url(path):
            return await publish_path(
                Path(path), project=project, door=door, kind=kind, maps=maps, on_progress=note,
                validated_by=validated_by, source=chosen,
            )  # fmt: skip
        if maps or chosen:
            raise InvalidOption(
                f"--{'map' if maps else 'source'}: is for files on this machine; fetch the file and "
                "publish it by its path"
            )
        return await publish_url(
            path, project=project, door=door, kind=kind, on_progress=note, validated_by=validated_by
        )


async def _watch(
    call: Call, path: str, project: str, withdraw_deleted: bool, allowed_groups: Sequence[str]
) -> None:
    from tunewheel_local.places import Var

    from tunewheel_cli.publishing.door import IngestDoor
    from tunewheel_cli.publishing.watching import FolderWatch, Watched

    folder, client = Path(path), call.writer
    call.tell(f"watching {folder}; Ctrl-C stops")
    watched = Watched.of(Var.at(call.var).watches, folder, project)
    watch = FolderWatch(
        folder, project, lambda: IngestDoor(client, allowed_groups), withdraw_deleted, watched
    )
    await watch.run(lambda step: _print_step(step, as_json=call.as_json))


def _print_step(step: Step, *, as_json: bool) -> None:
    if as_json:
        more = {"gone": list(step.gone), "withdrawn": step.withdrawn and bool(step.gone)}
        print_json(step.summary.as_json() | more | ({"error": str(step.error)} if step.error else {}))
        return
    if step.error is not None:
        print(f"{step.error}; it is tried again", file=sys.stderr)
        return
    print_summary(step.summary)
    if step.gone and not step.withdrawn:
        names = ", ".join(step.gone[:SHOWN_REFUSALS])
        print(f"deleted, but not withdrawn: {names} (see --withdraw-deleted)", file=sys.stderr)


def refusal_lines(summary: Summary) -> Iterator[str]:
    """Yield a line for each of the first refusals; a single one where all of many refusals say the same."""
    alike = {(refusal.field, refusal.reason) for refusal in summary.refusals}
    if summary.refused > SHOWN_REFUSALS and len(alike) == 1:
        field, reason = alike.pop()
        who = f"{summary.refused:,} lines" if summary.events else f"all {summary.refused:,} lines"
        yield f"{who}, the first at {summary.refusals[0].where}: {field} {reason}"
        return
    yield from map(str, summary.refusals[:SHOWN_REFUSALS])
    if summary.refused > SHOWN_REFUSALS:
        yield f"{summary.refused - SHOWN_REFUSALS} more refused; --json lists them"


def print_summary(summary: Summary) -> None:
    """Print the result for a path; refusals go to standard error."""
    for note in (*([f"read as {summary.form}"] if summary.form else []), *summary.notes):
        print(f"{summary.path}: {note}", file=sys.stderr)
    for line in refusal_lines(summary):
        print(f"{summary.path}: {line}", file=sys.stderr)
    topics = ", ".join(f"{count} {topic}" for topic, count in summary.published.items()) or "nothing"
    rate = summary.events / summary.seconds if summary.seconds else 0.0
    refused = f", {summary.refused} refused" if summary.refused else ""
    print(f"published {topics}{refused} in {summary.seconds:.1f} s ({rate:,.0f}/s)")

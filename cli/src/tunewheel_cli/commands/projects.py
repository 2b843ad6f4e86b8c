"""declare, publish, build, ask: what one does with a project."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunewheel_cli.exits import Exit, print_json
from tunewheel_cli.publishing.items import Kind
from tunewheel_cli.reach import Reach, reaching

if TYPE_CHECKING:
    from tunewheel_cli.publishing.publish import Summary

SHOWN_REFUSALS = 20
Project = Annotated[str, typer.Option("--project", "-p", help="The project, as in its project.yaml.")]


def register(app: typer.Typer) -> None:
    for command in (declare, publish, build, ask):
        app.command()(command)


@reaching
def declare(
    reach: Reach, spec: Annotated[Path, typer.Argument(help="The project's YAML.", show_default=False)]
) -> None:
    """Check a project spec and put it in force."""
    from tunewheel_cli.specs import declare as put_in_force
    from tunewheel_cli.specs import read_spec

    checked = read_spec(spec)
    event = asyncio.run(put_in_force(checked, reach.client_options()))
    if reach.as_json:
        print_json({"project": checked.project, "event_id": event.id, "spec_sha256": checked.sha256,
                    "criteria_sha256": checked.criteria_sha256})  # fmt: skip
    else:
        print(
            f"declared {checked.project}: {len(checked.criteria)} criteria, base model {checked.base_model}"
        )


@reaching
def publish(
    reach: Reach,
    path: Annotated[Path, typer.Argument(help="JSON Lines, CSV, a document or a folder of documents.")],
    project: Project,
    kind: Annotated[Kind | None, typer.Option(help="What each record is; else its id field tells.")] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="CSV: column=field; a dotted field makes an object (category=output.category)."
        ),
    ] = None,
) -> None:
    """Publish tickets, examples or documents.

    Lines that are wrong are listed with line and field, all others are published (exit code 3). Publishing
    the same file again, after a crash for instance, doubles nothing: ids follow from content.
    """
    summary = asyncio.run(_publish(reach, path, project, kind, map_ or []))
    if reach.as_json:
        print_json(summary.as_json())
    else:
        tell(summary)
    if summary.refused:
        raise typer.Exit(Exit.REFUSED)


async def _publish(reach: Reach, path: Path, project: str, kind: Kind | None, maps: list[str]) -> Summary:
    from tunewheel_cli.commands.progress import PublishDisplay
    from tunewheel_cli.known import require_project
    from tunewheel_cli.publishing.publish import publish_path

    options = reach.client_options()
    await require_project(options, project)
    with PublishDisplay(silent=reach.as_json) as display:
        return await publish_path(
            path, project=project, options=options, kind=kind, maps=maps, on_progress=display.note
        )


def tell(summary: Summary) -> None:
    """Print what became of a path; refusals go to standard error."""
    for refusal in summary.refusals[:SHOWN_REFUSALS]:
        print(f"{summary.path}: {refusal}", file=sys.stderr)
    if summary.refused > SHOWN_REFUSALS:
        hidden = summary.refused - SHOWN_REFUSALS
        print(f"{summary.path}: {hidden} more refused; --json lists them", file=sys.stderr)
    topics = ", ".join(f"{count} {topic}" for topic, count in summary.published.items()) or "nothing"
    rate = summary.events / summary.seconds if summary.seconds else 0.0
    refused = f", {summary.refused} refused" if summary.refused else ""
    print(f"published {topics}{refused} in {summary.seconds:.1f} s ({rate:,.0f}/s)")


@reaching
def build(
    reach: Reach,
    project: Project,
    request: Annotated[
        str | None, typer.Option(help="Names this request: the same name again is the same request.")
    ] = None,
) -> None:
    """Ask for a new dataset version now, whatever the build policy says."""
    import uuid

    from tunewheel_cli.known import require_project
    from tunewheel_cli.specs import request_build

    async def ask_for_it() -> str:
        options = reach.client_options()
        await require_project(options, project)
        return (await request_build(project, request or str(uuid.uuid4()), options)).id

    event_id = asyncio.run(ask_for_it())
    if reach.as_json:
        print_json({"project": project, "event_id": event_id})
    else:
        print(f"asked for a dataset of {project}; follow it with `tunewheel watch --project {project}`")


@reaching
def ask(
    reach: Reach,
    question: Annotated[str, typer.Argument(help="What to ask.")],
    project: Project,
    model: Annotated[
        str | None, typer.Option(help="A model id, or base; else what the project serves now.")
    ] = None,
    gateway: Annotated[
        str | None,
        typer.Option(
            envvar="TUNEWHEEL_GATEWAY_URL", help="URL of the gateway.", show_default="the running one"
        ),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="TUNEWHEEL_API_KEY", help="The gateway's API key.")
    ] = None,
) -> None:
    """Ask a project's model through the gateway."""
    from tunewheel_cli.asking import ask_gateway, gateway_url

    url = gateway or gateway_url(reach.var)
    answer = asyncio.run(ask_gateway(url, question, project=project, model=model, api_key=api_key))
    if reach.as_json:
        print_json({"model": answer.model, "text": answer.text, "completion_id": answer.completion_id,
                    "seconds": round(answer.seconds, 3)})  # fmt: skip
    else:
        print(answer.text)
        print(f"({answer.model}, {answer.seconds:.1f} s)", file=sys.stderr)

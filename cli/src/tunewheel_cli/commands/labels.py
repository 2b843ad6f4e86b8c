"""labels list, show, answer: prompts of production that wait for trusted answers."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from tunewheel_cli.commands.reviews import Reviewer, queue_of
from tunewheel_cli.exits import print_json
from tunewheel_cli.reach import ConsoleUrl, Project, Reach, reaching

Request = Annotated[str, typer.Argument(help="As `labels list` names it.", show_default=False)]


@reaching
async def list_(reach: Reach, project: Project, console_url: ConsoleUrl = None) -> None:
    """List the requests for labels of a project, those that wait first."""
    found = await queue_of("labels", reach, project, console_url).list()
    if reach.as_json:
        print_json(found)
        return
    from tunewheel_cli.console import printable

    for one in sorted(found["requests"], key=lambda one: one["state"] != "waiting"):
        about = printable(", ".join(one["keywords"])) or "no keywords"
        print(f"{one['request_id']}  {_far(one)}  {about}")
    if not found["requests"]:
        print(f"no labels were asked for in {project}")


@reaching
async def show(
    reach: Reach,
    request: Request,
    project: Project,
    item: Annotated[
        int | None, typer.Argument(help="Its number.", show_default="the first that is not answered")
    ] = None,
    output: Annotated[bool, typer.Option("--output", help="Print the model's own answer too.")] = False,
    console_url: ConsoleUrl = None,
) -> None:
    """Show a prompt, and what its answer has to hold."""
    progress, found = await queue_of("labels", reach, project, console_url).show(request, item)
    if reach.as_json:
        print_json(progress | {"item": found})
        return
    print(_far(progress))
    if found is None:
        return
    from tunewheel_cli.console import print_item, printable

    print_item(found, {"the model's answer": found["model_output"]} if output else {})
    print("--- answer")
    for field in progress["fields"]:
        print(printable(_field(field)))


@reaching
async def answer(
    reach: Reach,
    request: Request,
    item: Annotated[int, typer.Argument(help="Its number.", show_default=False)],
    project: Project,
    output: Annotated[
        str | None, typer.Argument(help="The answer: JSON where the task's answers are.", show_default=False)
    ] = None,
    out_of_scope: Annotated[
        bool, typer.Option("--out-of-scope", help="Nobody need answer it; nothing is published.")
    ] = False,
    console_url: ConsoleUrl = None,
    reviewer: Reviewer = None,
) -> None:
    """Answer a prompt. Once this returns, the answer is on the log; another one takes its place."""
    labels = queue_of("labels", reach, project, console_url, reviewer)
    body = {"out_of_scope": out_of_scope} | ({} if output is None else {"output": output})
    progress = await labels.answer(request, item, body)
    reach.show(progress, _far(progress))


def _far(progress: dict[str, Any]) -> str:
    """Return the progress of a request as text."""
    left_out = f", {progress['out_of_scope']} out of scope" if progress["out_of_scope"] else ""
    ended = f" (ended: {progress['outcome']})" if progress["outcome"] else ""
    following = f"; next is {progress['next']}" if progress.get("next") else ""
    return (
        f"{progress['answered']} answered of {progress['wanted']} wanted, {progress['prompts']} prompts"
        f"{left_out}{ended}{following}"
    )


def _field(field: dict[str, Any]) -> str:
    kind = field["kind"].replace("_", " or ")
    if field["choices"]:
        kind = "one of " + ", ".join(json.dumps(value, ensure_ascii=False) for value in field["choices"])
    optional = "" if field["required"] else " (optional)"
    return f"{field['name'] or 'the whole answer'}: {kind}{optional}"

"""The commands about requests for labels."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from tunewheel_cli.calling import Call, Project, calling
from tunewheel_cli.exits import Exit, plain


@calling
def list_(call: Call, project: Project) -> None:
    """List the requests for labels of a project, those that wait first."""
    from tunewheel_cli.items import labels_so_far
    from tunewheel_cli.texts import flat

    found = call.client.labels.list(project)

    def tell() -> None:
        for one in sorted(found.requests, key=lambda one: one.state != "waiting"):
            print(f"{one.request_id}  {labels_so_far(one)}  {flat(one.keywords) or 'no keywords'}")
        if not found.requests:
            print(f"no labels were asked for in {project}")

    call.show(found, tell)


RequestId = Annotated[str, typer.Argument(help="Its id, the beginning of it, or latest.", show_default=False)]


@calling
def show(
    call: Call,
    request: RequestId,
    project: Project,
    item: Annotated[
        int | None, typer.Argument(help="Its number.", show_default="the first that is not answered")
    ] = None,
    output: Annotated[bool, typer.Option("--output", help="Print the model's own answer too.")] = False,
) -> None:
    """Show a prompt, and what its answer has to hold."""
    from tunewheel_cli.items import labels_so_far, print_field, print_item

    labels = call.client.labels
    progress = labels.show(project, request)
    number = progress.next if item is None else item
    found = None if number is None else labels.item(project, request, number)

    def tell() -> None:
        print(labels_so_far(progress))
        if found is not None:
            print_item(found, {"the model's answer": found.model_output} if output else {})
            print("--- answer")
            for field in progress.fields:
                print_field(field)

    call.show(plain(progress) | {"item": plain(found)}, tell)


@calling
def answer(
    call: Call,
    request: RequestId,
    item: Annotated[int, typer.Argument(help="Its number.", show_default=False)],
    project: Project,
    output: Annotated[
        str | None, typer.Argument(help="The answer: JSON where the task's answers are.", show_default=False)
    ] = None,
    out_of_scope: Annotated[
        bool, typer.Option("--out-of-scope", help="No answer is right; nothing is trained on it.")
    ] = False,
    reviewer: Annotated[str | None, typer.Option(help="Who answers, where identity is open.")] = None,
) -> None:
    """Answer a prompt. Once this returns, the answer is on the log; another one takes its place."""
    from tunewheel_cli.items import labels_so_far

    progress = call.client.labels.answer(
        project, request, item, output, out_of_scope=out_of_scope, reviewer=reviewer
    )
    call.show(progress, lambda: print(labels_so_far(progress)))


@calling
def export(
    call: Call,
    request: RequestId,
    project: Project,
    to: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
) -> None:
    """Write the open prompts of a request for Label Studio: its labelling config, and its tasks."""
    from tunewheel_cli.label_studio import config_of, task_of

    labels = call.client.labels
    found = labels.show(project, request)
    items = [labels.item(project, request, one.number) for one in found.items if one.state == "open"]
    tasks = [task_of(found.request_id, item, found.fields) for item in items]
    config, file = to / f"{found.request_id}.xml", to / f"{found.request_id}.json"
    to.mkdir(parents=True, exist_ok=True)
    config.write_text(config_of(found.fields), encoding="utf-8")
    file.write_text(json.dumps(tasks, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    told = {"config": str(config), "tasks": str(file), "prompts": len(tasks)}
    call.show(told, lambda: print(f"{len(tasks)} tasks in {file}, for a project with the config {config}"))


@calling
def import_(
    call: Call,
    file: Annotated[Path, typer.Argument(help="Label Studio's export, as JSON.", show_default=False)],
    project: Project,
) -> None:
    """Publish the annotations of a Label Studio export as answers: the annotators', where identity is open,
    else the caller's, who vouches for them."""
    from tunewheel_client.errors import Refused

    from tunewheel_cli.label_studio import InvalidAnnotation, annotations_in
    from tunewheel_cli.texts import printable

    labels, refused = call.client.labels, list[str]()
    try:
        tasks = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidAnnotation(f"{file} cannot be read: {error}; export the tasks as JSON") from error
    found = annotations_in(tasks, cache(lambda request: labels.show(project, request).fields))
    for one in found:
        told: dict[str, Any] = {
            "output": one.output, "out_of_scope": one.output is None, "answered_at": one.at,
        }  # fmt: skip
        where = (project, one.request_id, one.number)
        try:
            try:
                labels.answer(*where, **told, reviewer=one.annotator)
            except Refused as error:
                if error.param != "reviewer":
                    raise
                labels.answer(*where, **told)
        except Refused as error:
            refused.append(f"{one.request_id} item {one.number}: {error}")
    for line in refused:
        print(printable(line), file=sys.stderr)
    taken = len(found) - len(refused)
    call.show({"answers": taken, "refused": refused}, lambda: print(f"{taken} answers were published"))
    if refused:
        raise typer.Exit(Exit.REFUSED)

"""The commands about requests for labels."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Project, calling, plain


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


RequestId = Annotated[str, typer.Argument(help="As `tunewheel label list` names it.", show_default=False)]


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
        bool, typer.Option("--out-of-scope", help="Nobody need answer it; nothing is published.")
    ] = False,
    reviewer: Annotated[str | None, typer.Option(help="Who answers, where identity is open.")] = None,
) -> None:
    """Answer a prompt. Once this returns, the answer is on the log; another one takes its place."""
    from tunewheel_cli.items import labels_so_far

    progress = call.client.labels.answer(
        project, request, item, output, out_of_scope=out_of_scope, reviewer=reviewer
    )
    call.show(progress, lambda: print(labels_so_far(progress)))

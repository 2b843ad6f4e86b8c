"""label show."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Project, calling, plain

RequestId = Annotated[str, typer.Argument(help="As `tunewheel label list` names it.", show_default=False)]


@calling
def command(
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

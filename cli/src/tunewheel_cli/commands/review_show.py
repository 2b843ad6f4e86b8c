"""review show."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Project, calling, plain
from tunewheel_cli.commands.review_list import Reviewer

Review = Annotated[str, typer.Argument(help="As `tunewheel review list` names it.", show_default=False)]


@calling
def command(
    call: Call,
    review: Review,
    project: Project,
    item: Annotated[
        int | None, typer.Argument(help="Its number.", show_default="the first that is not answered")
    ] = None,
    expected: Annotated[bool, typer.Option("--expected", help="Print the expert's answer too.")] = False,
    reviewer: Reviewer = None,
) -> None:
    """Show an item with its two answers; once you have submitted, which model was which."""
    from tunewheel_cli.items import print_item, review_so_far

    reviews = call.client.reviews
    progress = reviews.show(project, review, reviewer=reviewer)
    number = progress.next if item is None else item
    found = None if number is None else reviews.item(project, review, number, reviewer=reviewer)

    def tell() -> None:
        print(review_so_far(progress))
        if found is not None:
            shown = ("left", "right", *["expected"] * expected)
            print_item(found, {name: getattr(found, name) for name in shown})

    call.show(plain(progress) | {"item": plain(found)}, tell)

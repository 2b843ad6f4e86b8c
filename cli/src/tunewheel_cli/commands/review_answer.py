"""review answer."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Project, calling
from tunewheel_cli.commands.review_list import Reviewer
from tunewheel_cli.commands.review_show import Review


class Choice(StrEnum):
    """Which answer is better."""

    LEFT = "left"
    SAME = "same"
    RIGHT = "right"


@calling
def command(
    call: Call,
    review: Review,
    item: Annotated[int, typer.Argument(help="Its number.", show_default=False)],
    choice: Annotated[Choice, typer.Argument(help="Which answer is better.", show_default=False)],
    project: Project,
    reason: Annotated[list[str] | None, typer.Option(help="Why, in a word; give it several times.")] = None,
    corrected: Annotated[str | None, typer.Option(help="What should have been answered.")] = None,
    reviewer: Reviewer = None,
) -> None:
    """Judge an item. Once this returns, the answer is kept; another one replaces it until you submit."""
    from tunewheel_cli.items import review_so_far

    progress = call.client.reviews.answer(
        project, review, item, choice.value, reasons=reason or (), corrected=corrected, reviewer=reviewer
    )
    call.show(progress, lambda: print(review_so_far(progress)))

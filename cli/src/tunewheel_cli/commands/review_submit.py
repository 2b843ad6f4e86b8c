"""review submit."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Project, calling
from tunewheel_cli.commands.review_list import Reviewer
from tunewheel_cli.commands.review_show import Review


class Verdict(StrEnum):
    """A reviewer's verdict, as typed."""

    APPROVE = "approve"
    REJECT = "reject"


@calling
def command(
    call: Call,
    review: Review,
    verdict: Annotated[Verdict, typer.Argument(help="reject is final.", show_default=False)],
    project: Project,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    reviewer: Reviewer = None,
) -> None:
    """Give your last word on a review, all of whose items you have answered."""
    from tunewheel_cli.items import review_so_far

    said = "approved" if verdict is Verdict.APPROVE else "rejected"
    progress = call.client.reviews.submit(project, review, said, comment=comment, reviewer=reviewer)
    call.show(progress, lambda: print(review_so_far(progress)))

"""The commands about reviews of answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Project, calling
from tunewheel_cli.exits import plain

Reviewer = Annotated[str | None, typer.Option(help="Who answers, where identity is open.")]


@calling
def list_(call: Call, project: Project, reviewer: Reviewer = None) -> None:
    """List the reviews of a project, those that wait for you first."""
    from tunewheel_cli.texts import flat

    found = call.client.reviews.list(project, reviewer=reviewer)

    def tell() -> None:
        for one in sorted(found.reviews, key=lambda one: one.state != "waiting"):
            people = f"{one.submitted} of {one.reviewers} people submitted"
            people = people if one.takes_verdict else "a model on trial waits for them"
            outcome = f": {flat(one.outcome)}" if one.outcome else ""
            print(
                f"{one.review_id}  {one.state}{outcome}  you answered {one.answered}, of {one.items} items "
                f"in all; {people}"
            )
        if not found.reviews:
            print(f"no review of answers was asked for in {project}")

    call.show(found, tell)


Review = Annotated[str, typer.Argument(help="Its id, the beginning of it, or latest.", show_default=False)]


@calling
def show(
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


class Choice(StrEnum):
    """Which answer is better."""

    LEFT = "left"
    SAME = "same"
    RIGHT = "right"


@calling
def answer(
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


class Verdict(StrEnum):
    """A reviewer's verdict, as typed."""

    APPROVE = "approve"
    REJECT = "reject"


@calling
def submit(
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

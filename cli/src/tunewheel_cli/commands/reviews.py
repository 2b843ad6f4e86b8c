"""review list, show, answer, submit: blind comparisons of models' answers."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tunewheel_cli.exits import print_json
from tunewheel_cli.reach import ConsoleUrl, Project, Reach, reaching

if TYPE_CHECKING:
    from tunewheel_cli.console import ConsoleQueue

Review = Annotated[str, typer.Argument(help="As `review list` names it.", show_default=False)]
Reviewer = Annotated[str | None, typer.Option(help="Who answers, where identity is open.")]


class Choice(StrEnum):
    """Which answer is better."""

    LEFT = "left"
    SAME = "same"
    RIGHT = "right"


class Verdict(StrEnum):
    """A reviewer's verdict, as typed."""

    APPROVE = "approve"
    REJECT = "reject"


SAID = {Verdict.APPROVE: "approved", Verdict.REJECT: "rejected"}


@reaching
async def list_(
    reach: Reach, project: Project, console_url: ConsoleUrl = None, reviewer: Reviewer = None
) -> None:
    """List the reviews of a project, those that wait for you first."""
    found = await queue_of("reviews", reach, project, console_url, reviewer).list()
    if reach.as_json:
        print_json(found)
        return
    for one in sorted(found["reviews"], key=lambda one: one["state"] != "waiting"):
        outcome = f": {one['outcome']}" if one["outcome"] else ""
        people = f"{one['submitted']} of {one['reviewers']} people submitted"
        people = people if one.get("takes_verdict", True) else "a model on trial waits for them"
        print(
            f"{one['review_id']}  {one['state']}{outcome}  you answered {one['answered']}, of {one['items']} "
            f"items in all; {people}"
        )
    if not found["reviews"]:
        print(f"no review of answers was asked for in {project}")


@reaching
async def show(
    reach: Reach,
    review: Review,
    project: Project,
    item: Annotated[
        int | None,
        typer.Argument(help="Its number.", show_default="the first that is not answered"),
    ] = None,
    expected: Annotated[bool, typer.Option("--expected", help="Print the expert's answer too.")] = False,
    console_url: ConsoleUrl = None,
    reviewer: Reviewer = None,
) -> None:
    """Show an item with its two answers; once you have submitted, which model was which."""
    reviews = queue_of("reviews", reach, project, console_url, reviewer)
    progress, found = await reviews.show(review, item)
    if reach.as_json:
        print_json(progress | {"item": found})
        return
    print(_far(progress))
    if found is not None:
        from tunewheel_cli.console import print_item

        print_item(found, {name: found[name] for name in ("left", "right", *["expected"] * expected)})


@reaching
async def answer(
    reach: Reach,
    review: Review,
    item: Annotated[int, typer.Argument(help="Its number.", show_default=False)],
    choice: Annotated[Choice, typer.Argument(help="Which answer is better.", show_default=False)],
    project: Project,
    reason: Annotated[list[str] | None, typer.Option(help="Why, in a word; give it several times.")] = None,
    corrected: Annotated[str | None, typer.Option(help="What should have been answered.")] = None,
    console_url: ConsoleUrl = None,
    reviewer: Reviewer = None,
) -> None:
    """Judge an item. Once this returns, the answer is kept; another one replaces it until you submit."""
    reviews = queue_of("reviews", reach, project, console_url, reviewer)
    body = {"choice": choice.value, "reasons": reason or [], "corrected": corrected}
    progress = await reviews.answer(review, item, body)
    reach.show(progress, _far(progress))


@reaching
async def submit(
    reach: Reach,
    review: Review,
    verdict: Annotated[Verdict, typer.Argument(help="reject is final.", show_default=False)],
    project: Project,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    console_url: ConsoleUrl = None,
    reviewer: Reviewer = None,
) -> None:
    """Give your last word on a review, all of whose items you have answered."""
    reviews = queue_of("reviews", reach, project, console_url, reviewer)
    progress = await reviews.submit(review, {"verdict": SAID[verdict], "comment": comment})
    reach.show(progress, _far(progress))


def queue_of(
    kind: Literal["reviews", "labels"],
    reach: Reach,
    project: str,
    console_url: str | None,
    reviewer: str | None = None,
) -> ConsoleQueue:
    """Return the console's queue of reviews or labels of ``project``."""
    from tunewheel_cli.console import ConsoleQueue

    return ConsoleQueue(reach.endpoint("console", console_url), kind, project, reviewer)


def _far(progress: dict[str, Any]) -> str:
    """Return a person's progress as text."""
    count = f"{progress['answered']} of {progress['items']} answered"
    if progress["state"] == "waiting":
        following = progress["next"]
        done = "submit with approve or reject" if progress.get("takes_verdict", True) else "none is left now"
        return f"{count}; " + (f"next is {following}" if following else done)
    found, said = progress["revealed"], progress["revealed"]["preferences"]
    state = f"ended: {progress['outcome']}" if progress["outcome"] else f"{progress['verdict']} by you"
    return (
        f"{count}; {state}. The candidate was {found['candidate']}, compared with {found['other']}: better "
        f"{said.get('better', 0)}, same {said.get('same', 0)}, worse {said.get('worse', 0)}"
    )

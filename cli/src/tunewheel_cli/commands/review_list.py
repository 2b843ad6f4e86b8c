"""review list."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Project, calling

Reviewer = Annotated[str | None, typer.Option(help="Who answers, where identity is open.")]


@calling
def command(call: Call, project: Project, reviewer: Reviewer = None) -> None:
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

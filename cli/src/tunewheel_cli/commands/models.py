"""model promote, rollback, pin, unpin, retire, reject, stop: people's commands on models; card, compare: the
registry's reports on them."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tunewheel_cli.exits import Exit, print_json
from tunewheel_cli.reach import Reach, Registry, Request, reaching

if TYPE_CHECKING:
    from tunewheel_cli.model_commands import Answer

Project = Annotated[str, typer.Argument(help="The project, as in its project.yaml.", show_default=False)]
Model = Annotated[
    str,
    typer.Argument(
        help="A model's id, champion, challenger (on trial), or base (while it answers).", show_default=False
    ),
]
ModelId = Annotated[str, typer.Argument(help="A model, as in `tunewheel model list`.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why; it is kept with the model.", show_default=False)]
Generation = Annotated[
    int | None,
    typer.Option(
        help="Of the state that you saw: the command is refused once anything else happened.",
        show_default="of now",
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the registry's answer.")]


class Remaining(StrEnum):
    """The model that answers all traffic after ``stop``."""

    CHAMPION = "champion"
    BASE = "base"


To = Annotated[Remaining, typer.Option("--to", help="Who answers everything from now on.")]
Force = Annotated[bool, typer.Option("--force", help="Even what was not judged, or did not pass.")]
STOP = "stop"
ORDERS = {
    "rollback": "Take a model out of traffic; from production the champion before it takes over, or the "
    "base.",
    "pin": "Keep production with the model that is in it: whoever passes waits.",
    "unpin": "Let others into production again; the newest of those who wait goes on.",
    "retire": "Take a model out in good order; only a command brings it back.",
    "reject": "Take a version out for good.",
}
"""By action, except ``promote``, which can be forced, the help text."""


@reaching
async def promote(
    reach: Reach, project: Project, model: Model, reason: Reason, force: Force = False,
    generation: Generation = None, timeout_seconds: Timeout = 30.0, request: Request = None,
) -> None:  # fmt: skip
    """Put a model into production at once, whomever it was compared with."""
    await _order(reach, "promote", project, model, reason, generation, timeout_seconds, request, force=force)


@reaching
async def stop(
    reach: Reach, project: Project, reason: Reason, to: To = Remaining.CHAMPION,
    timeout_seconds: Timeout = 30.0, request: Request = None,
) -> None:  # fmt: skip
    """Send all traffic of a project to its champion or its bare base at once: no trial, no copy, nobody else,
    until `model unpin`."""
    await _order(reach, STOP, project, to.value, reason, None, timeout_seconds, request)


def _command(action: str) -> Callable[..., Any]:
    @reaching
    async def order(
        reach: Reach, project: Project, model: Model, reason: Reason, generation: Generation = None,
        timeout_seconds: Timeout = 30.0, request: Request = None,
    ) -> None:  # fmt: skip
        await _order(reach, action, project, model, reason, generation, timeout_seconds, request)

    order.__doc__ = ORDERS[action]
    return order


rollback, pin, unpin, retire, reject = map(_command, ("rollback", "pin", "unpin", "retire", "reject"))


async def _order(
    reach: Reach,
    action: str,
    project: str,
    model: str,
    reason: str,
    generation: int | None,
    timeout_seconds: float,
    request: str | None,
    **more: Any,
) -> None:
    from pydantic import ValidationError
    from tunewheel_contracts.errors import first_complaint
    from tunewheel_contracts.event import new_event
    from tunewheel_contracts.events.lifecycle import ModelCommanded
    from tunewheel_local.connection import InvalidOption

    from tunewheel_cli.model_commands import command, desired_of, meant
    from tunewheel_cli.publishing.events import SOURCE
    from tunewheel_cli.reading import require_project

    options = reach.client_options()
    await require_project(options, project)
    # ``stop`` takes effect whatever else happened, so it names no generation; the registry resolves the
    # alias.
    desired = None if action == STOP else await desired_of(options, project)
    named = model if action == STOP else meant(desired, model)
    seen = desired.generation if desired and generation is None else generation
    try:
        data = ModelCommanded(
            project=project, model_id=named, action=action, reason=reason,
            request=request or str(uuid.uuid4()), generation=seen, principal=reach.principal(), **more,
        )  # fmt: skip
    except ValidationError as error:
        raise InvalidOption(" ".join(first_complaint(error))) from error
    answer = await command(options, new_event(data, source=SOURCE), timeout_seconds=timeout_seconds)
    _leave_with(answer, as_json=reach.as_json, timeout_seconds=timeout_seconds)


def _leave_with(answer: Answer, *, as_json: bool, timeout_seconds: float) -> NoReturn:
    """Print the registry's answer and exit with its code."""
    ordered, refusal = answer.command.data, answer.refusal
    if as_json:
        print_json(answer.as_json())
    elif refusal is not None:
        print(f"refused: {refusal.field} {refusal.reason}", file=sys.stderr)
    elif answer.event is None:
        print(
            f"the registry has not answered within {timeout_seconds:g} s; the command stays on the log, and "
            "counts once it is back: is it running (`tunewheel status`)?",
            file=sys.stderr,
        )
    elif ordered.action == STOP:
        print(
            f"all traffic of {ordered.project} goes to its {ordered.model_id}; others come back by "
            f"`tunewheel model unpin {ordered.project} {ordered.model_id} --reason WHY`"
        )
    else:
        print(f"{ordered.action} of {ordered.model_id} in {ordered.project}: done")
    codes = {"done": Exit.OK, "refused": Exit.FAILED, "unanswered": Exit.UNFINISHED}
    sys.exit(codes[answer.outcome])


@reaching
async def card(reach: Reach, project: Project, model: ModelId, registry: Registry = None) -> None:
    """Print a model's card: Markdown with metadata in YAML, as the Hugging Face hub has them."""
    from tunewheel_cli.client import read_registry

    path = ("projects", project, "models", model, "card")
    text = await read_registry(reach.endpoint("registry", registry), *path)
    reach.show({"model_id": model, "card": text}, lambda: print(text, end=""))


@reaching
async def compare(
    reach: Reach,
    project: Project,
    first: ModelId,
    second: Annotated[str, typer.Argument(help="The model to compare it with.", show_default=False)],
    registry: Registry = None,
) -> None:
    """Show what changed from one model to another: data, recipe, criteria, figures, what serves."""
    from tunewheel_cli.client import read_registry
    from tunewheel_cli.comparison import print_comparison

    path = ("projects", project, "models", first, "comparison", second)
    found = json.loads(await read_registry(reach.endpoint("registry", registry), *path))
    reach.show(found, lambda: print_comparison(found))

"""model promote, rollback, pin, unpin, retire, reject, stop: people outrank metrics."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from tunewheel_cli.calling import Call, Model, Project, Request, Timeout, calling, settle

Reason = Annotated[str, typer.Option(help="Why; it is kept with the model.", show_default=False)]
Generation = Annotated[
    int | None,
    typer.Option(
        help="Of the state that you saw: the command is refused once anything else happened.",
        show_default="of now",
    ),
]


class Remaining(StrEnum):
    """The model that answers all traffic after ``stop``."""

    CHAMPION = "champion"
    BASE = "base"


@calling
def promote(
    call: Call, model: Model, project: Project, reason: Reason,
    force: Annotated[
        bool, typer.Option("--force", help="Even what was not judged, or did not pass.")
    ] = False,
    generation: Generation = None, request: Request = None, timeout: Timeout = 30.0,
) -> None:  # fmt: skip
    """Put a model into production at once, whomever it was compared with."""
    more = {"force": force, "generation": generation}
    _order(call, "promote", model, project, reason, request, timeout, **more)


@calling
def stop(
    call: Call, project: Project, reason: Reason,
    to: Annotated[
        Remaining, typer.Option("--to", help="Who answers everything from now on.")
    ] = Remaining.CHAMPION,
    request: Request = None, timeout: Timeout = 30.0,
) -> None:  # fmt: skip
    """Send all traffic of a project to its champion or its bare base at once: no trial, no copy, nobody else,
    until `model unpin`."""
    _order(call, "stop", to.value, project, reason, request, timeout)
    call.tell(f"others come back by `tunewheel model unpin {to.value} --project {project} --reason WHY`")


def _command(action: str, about: str) -> Callable[..., Any]:
    def order(
        call: Call, model: Model, project: Project, reason: Reason, generation: Generation = None,
        request: Request = None, timeout: Timeout = 30.0,
    ) -> None:  # fmt: skip
        _order(call, action, model, project, reason, request, timeout, generation=generation)

    order.__doc__ = about
    return calling(order)


rollback = _command(
    "rollback",
    "Take a model out of traffic; from production the champion before it takes over, or the base.",
)
pin = _command("pin", "Keep production with the model that is in it: whoever passes waits.")
unpin = _command("unpin", "Let others into production again; the newest of those who wait goes on.")
retire = _command("retire", "Take a model out in good order; only a command brings it back.")
reject = _command("reject", "Take a version out for good.")


def _order(
    call: Call, action: str, model: str, project: str, reason: str, request: str | None, timeout: float,
    **more: Any,
) -> None:  # fmt: skip
    told = {name: value for name, value in more.items() if value not in (None, False)}
    accepted = getattr(call.writer.models, action)(project, model, reason=reason, request=request, **told)
    command = settle(call, project, accepted, timeout)
    call.show(command or accepted, f"{action} of {model} in {project}: {'done' if command else 'asked for'}")

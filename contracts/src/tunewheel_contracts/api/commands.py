"""Commands of people: what became of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import Frozen, Strict, Timestamp


class Accepted(Frozen):
    """A command is on the log. The services answer it later."""

    project: str
    command_id: str = ""
    """The id of the command's event."""


class Command(Frozen):
    """What became of a command."""

    command_id: str
    project: str
    state: str
    """``waiting``, ``done`` or ``refused``."""
    type: str = ""
    """The type of the command's event."""
    at: Timestamp | None = None
    field: str | None = None
    """The field to correct; None: the command was not refused."""
    reason: str = ""
    """Why the command was refused, or what it led to."""


class ModelOrder(Strict):
    """The body of a command on a model. ``generation``: of the state on which the order is based. None: the
    newest one that the console knows."""

    reason: Annotated[str, Field(min_length=1, max_length=10_000)]
    force: bool = False
    generation: Annotated[int, Field(ge=0)] | None = None

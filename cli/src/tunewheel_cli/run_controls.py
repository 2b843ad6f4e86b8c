"""Commands to training runs, as events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.training import TrainAction, TrainControl

from tunewheel_cli.connection import InvalidOption
from tunewheel_cli.publishing.events import SOURCE
from tunewheel_cli.publishing.sender import publish_events


def make_control(project: str, run_id: str, action: TrainAction, request: str) -> Envelope[TrainControl]:
    """The command as an event. Raises InvalidOption for a run id that cannot be one."""
    try:
        data = TrainControl(project=project, run_id=run_id, action=action, request=request)
    except ValidationError as error:
        field, reason = first_complaint(error)
        raise InvalidOption(f"{field} {reason}") from error
    return new_event(data, source=SOURCE)


async def control(
    project: str, run_id: str, action: TrainAction, request: str, options: Mapping[str, Any]
) -> Envelope[TrainControl]:
    """Publish one command; ``request`` tells repeated ones apart."""
    envelope = make_control(project, run_id, action, request)
    await publish_events(options, envelope)
    return envelope

"""Publishes commands to training runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from tunewheel_cli.publishing.events import SOURCE
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.training import TrainAction, TrainCompleted, TrainControl, TrainFailed
from tunewheel_contracts.principal import Principal
from tunewheel_contracts.topics import (
    DATASET_VERSIONED,
    TRAIN_COMPLETED,
    TRAIN_FAILED,
    TRAIN_PLANNED,
    TRAIN_STARTED,
)
from tunewheel_local.connection import InvalidOption
from tunewheel_wheel.facts import order_of_training

from tunewheel_testing.reading import read_topics
from tunewheel_testing.sender import publish_events

ENDS = (TRAIN_STARTED, TRAIN_COMPLETED, TRAIN_FAILED)


def make_control(
    project: str, run_id: str, action: TrainAction, request: str, principal: Principal | None
) -> Envelope[TrainControl]:
    """Return the command as an event. Raises InvalidOption for an invalid run id."""
    try:
        data = TrainControl(
            project=project, run_id=run_id, action=action, request=request, principal=principal
        )
    except ValidationError as error:
        field, reason = first_complaint(error)
        raise InvalidOption(f"{field} {reason}") from error
    return new_event(data, source=SOURCE)


async def control(
    project: str,
    run_id: str,
    action: TrainAction,
    request: str,
    options: Mapping[str, Any],
    principal: Principal | None,
) -> Envelope[TrainControl]:
    """Publish one command. ``request`` distinguishes repeated commands."""
    envelope = make_control(project, run_id, action, request, principal)
    await publish_events(options, envelope)
    return envelope


async def unheard_of(run_id: str, options: Mapping[str, Any]) -> bool:
    """Return whether no event names this run. A run that waits for a machine has no event yet either."""
    naming_runs = (TRAIN_PLANNED, *ENDS)
    return not any([event.data.run_id == run_id async for event in read_topics(options, naming_runs)])


async def train_again(run_id: str, options: Mapping[str, Any]) -> bool:
    """Publish the dataset of a failed run once more; return whether the run had failed.

    The event is published unchanged, so that services that know it see nothing new. Training has no result
    for it, and therefore trains it. Publish the command to resume first; otherwise a cancelled run stays
    cancelled.

    Raises:
        InvalidOption: the dataset's event is no longer on the log.
    """
    failed = last_failure(run_id, [event async for event in read_topics(options, ENDS)])
    if failed is None:
        return False
    async for event in read_topics(options, (DATASET_VERSIONED,)):
        if event.id == failed.causation_id:
            await publish_events(options, event)
            return True
    raise InvalidOption(
        f"run_id: {failed.data.dataset_id}, which {run_id} trained on, is no longer on the log; "
        "build a new version"
    )


def last_failure(run_id: str, events: Iterable[Envelope[Any]]) -> Envelope[TrainFailed] | None:
    """Return the last failure of a run, if the run was neither completed nor started again since."""
    of_run = [event for event in events if event.data.run_id == run_id]
    if any(isinstance(event.data, TrainCompleted) for event in of_run):
        return None
    last = max(of_run, key=order_of_training, default=None)
    return last if last is not None and isinstance(last.data, TrainFailed) else None

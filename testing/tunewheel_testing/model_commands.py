"""Publishes commands on models, and waits for the registry's answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.lifecycle import CommandRefused, ModelCommanded, ServingDesired
from tunewheel_contracts.formats.serving import ALIASES
from tunewheel_contracts.topics import (
    COMMAND_REFUSED,
    MODEL_PINNED,
    MODEL_PROMOTED,
    MODEL_ROLLEDBACK,
    SERVING_DESIRED,
)
from tunewheel_local.connection import InvalidOption

from tunewheel_testing.reading import follow, read_latest
from tunewheel_testing.sender import publish_events

BASE = "base"
"""The alias of the bare base model, while it serves."""
ANSWERS = (MODEL_PROMOTED, MODEL_ROLLEDBACK, MODEL_PINNED, COMMAND_REFUSED)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a command. ``event`` None: there is no answer yet."""

    command: Envelope[ModelCommanded]
    event: Envelope[Any] | None

    @property
    def refusal(self) -> CommandRefused | None:
        data = self.event.data if self.event else None
        return data if isinstance(data, CommandRefused) else None

    @property
    def outcome(self) -> str:
        if self.event is None:
            return "unanswered"
        return "done" if self.refusal is None else "refused"

    def as_json(self) -> dict[str, Any]:
        """Return the answer for machines."""
        command, refusal = self.command.data, self.refusal
        why = {"field": refusal.field, "reason": refusal.reason} if refusal else {}
        asked = command.model_dump(include={"project", "model_id", "action"})
        return asked | {"command_id": self.command.id, "outcome": self.outcome} | why


async def desired_of(options: Mapping[str, Any], project: str) -> ServingDesired | None:
    """Return the desired serving state of ``project``; None: there is none yet."""
    found = (await read_latest(options, SERVING_DESIRED)).get(project)
    return found.data if found else None


def meant(desired: ServingDesired | None, name: str) -> str:
    """Return the id of the model that ``name``, an id or an alias, stands for.

    Raises:
        InvalidOption: no model has the alias.
    """
    if name == BASE:
        routes = desired.desired.routes if desired else ()
        found = next((route.model_id for route in routes if route.adapter is None), None)
    elif desired is None and name not in ALIASES:
        return name
    else:
        found = desired.desired.model_id(name) if desired else None
    if found is None:
        raise InvalidOption(f"model: there is no {name} now; name one by its id (`tunewheel model list`)")
    return found


async def command(
    options: Mapping[str, Any], event: Envelope[ModelCommanded], *, timeout_seconds: float
) -> Answer:
    """Publish a command and wait for the registry's answer, which may be on the log already.

    Raises:
        TransientError: no Kafka answers.
    """
    await publish_events(options, event)
    try:
        async with asyncio.timeout(timeout_seconds):
            async for said in follow(options, ANSWERS, from_beginning=True):
                named = said.data.command_id if isinstance(said.data, CommandRefused) else said.data.cause
                if named == event.id:
                    return Answer(event, said)
    except TimeoutError:
        pass
    return Answer(event, None)

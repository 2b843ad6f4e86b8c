"""What operators look after: services, dead letters, commands."""

from __future__ import annotations

import asyncio
import time
from typing import Unpack

from tunewheel_contracts.api.commands import Command
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.services import DeadLetter, Services

from tunewheel_client.aio.resource import Paging, Resource
from tunewheel_client.errors import Away, Refused


class Commands(Resource):
    """What became of commands."""

    async def show(self, project: str, command_id: str) -> Command:
        """Return whether a command waits, was obeyed, or was refused and why."""
        return await self._read(Command, project, "commands", command_id)

    async def wait(
        self, project: str, command_id: str, *, timeout_seconds: float = 60.0, poll_seconds: float = 0.5
    ) -> Command:
        """Wait until a command was obeyed, and return it.

        Raises:
            Refused: a service refused the command; the message says why.
            Away: nobody has answered the command after ``timeout_seconds``.
        """
        ends = time.monotonic() + timeout_seconds
        command = await self.show(project, command_id)
        while command.state == "waiting":
            if time.monotonic() + poll_seconds > ends:
                raise Away(f"command {command_id} of {project} was not answered in {timeout_seconds:g} s")
            await asyncio.sleep(poll_seconds)
            command = await self.show(project, command_id)
        if command.state == "refused":
            raise Refused(command.reason, param=command.field, code="command_refused")
        return command


class ServicesOfWheel(Resource):
    """The services of the wheel."""

    async def list(self) -> Services:
        """Return which services read the log, and how far they are behind."""
        return await self._transport.read(Services, "services")


class DeadLetters(Resource):
    """The messages that services refused. The caller needs the role viewer in all projects."""

    async def list(
        self, *, project: str | None = None, topic: str | None = None, **paging: Unpack[Paging]
    ) -> Page[DeadLetter]:
        """Return a page of messages, newest first; those of one project or topic where one is named."""
        return await self._transport.read(
            Page[DeadLetter], "dead-letters", project=project, topic=topic, **paging
        )

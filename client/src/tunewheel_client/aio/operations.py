"""What operators look after: commands, keys, the audit trail, services and dead letters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Unpack

from tunewheel_contracts.api.commands import AuditEntry, Command
from tunewheel_contracts.api.keys import Keys as KeysOfWheel
from tunewheel_contracts.api.keys import NewKey
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.services import DeadLetter, Redelivered, Services

from tunewheel_client.aio.resource import Paging, Resource
from tunewheel_client.errors import Away, Refused


class Commands(Resource):
    """What became of commands."""

    async def list(
        self, project: str, *, state: str | None = None, **paging: Unpack[Paging]
    ) -> Page[Command]:
        """Return a page of commands, newest first; of those in ``state`` where one is named."""
        return await self._read(Page[Command], project, "commands", state=state, **paging)

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

    async def show(self, letter_id: str) -> DeadLetter:
        """Return one with its message. The caller needs the role operator in all projects."""
        return await self._transport.read(DeadLetter, "dead-letters", letter_id)

    async def again(self, letter_id: str, *, all_like_it: bool = False) -> Redelivered:
        """Let the service handle the message once more; ``all_like_it``: also the others of the same service,
        topic, field and reason. The caller needs the role operator in all projects."""
        order = {"letter_id": letter_id, "all_like_it": all_like_it}
        return await self._transport.request(
            Redelivered, "POST", "dead-letters", "redeliveries", json=order, is_harmless=True
        )


class Keys(Resource):
    """The API keys of the wheel. The caller needs the role operator in all projects.

    Changes raise ``Conflict`` where the console may only read the file of keys.
    """

    async def list(self) -> KeysOfWheel:
        """Return the names of all keys with what each may do."""
        return await self._transport.read(KeysOfWheel, "keys")

    async def add(
        self,
        name: str,
        *,
        roles: Sequence[str] = (),
        projects: Sequence[str] = (),
        groups: Sequence[str] = (),
    ) -> NewKey:
        """Make a key and return it: it is told now and never again. Without ``projects`` its roles hold in
        all."""
        order = {"name": name, "roles": list(roles), "projects": list(projects), "groups": list(groups)}
        return await self._transport.request(NewKey, "POST", "keys", json=order, is_harmless=False)

    async def rotate(self, name: str, *, keep_old: bool = False) -> NewKey:
        """Replace a key and return the new one. ``keep_old``: the old one stays valid until it is revoked."""
        return await self._transport.request(
            NewKey, "POST", "keys", name, "rotate", json={"keep_old": keep_old}, is_harmless=False
        )

    async def revoke(self, name: str, *, old_only: bool = False) -> None:
        """End a key for good. ``old_only``: only the one that a rotation kept."""
        await self._transport.send("DELETE", "keys", name, query={"old_only": old_only or None})


class Audit(Resource):
    """Who ordered what. The caller needs the role operator in all projects."""

    async def list(
        self, *, project: str | None = None, principal: str | None = None, **paging: Unpack[Paging]
    ) -> Page[AuditEntry]:
        """Return a page of commands with who gave each and what became of it, newest first."""
        return await self._transport.read(
            Page[AuditEntry], "audit", project=project, principal=principal, **paging
        )

    async def export(
        self,
        form: Literal["jsonl", "csv"] = "jsonl",
        *,
        since: datetime | None = None,
        project: str | None = None,
        principal: str | None = None,
    ) -> str:
        """Return all commands, one a line."""
        kind = {"jsonl": "application/jsonl", "csv": "text/csv"}[form]
        query = {"since": since, "project": project, "principal": principal}
        answer = await self._transport.send("GET", "audit", query=query, headers={"Accept": kind})
        return answer.text

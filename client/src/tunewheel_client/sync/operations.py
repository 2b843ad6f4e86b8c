# Generated from aio/operations.py by scripts/client_sync.py; change that file instead.
"""What operators look after: commands, keys, the audit trail, services and dead letters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Unpack

from tunewheel_contracts.api.audit import AuditEntry
from tunewheel_contracts.api.commands import Command
from tunewheel_contracts.api.keys import Keys as KeysOfWheel
from tunewheel_contracts.api.keys import NewKey
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.services import DeadLetter, Services

from tunewheel_client.errors import Away, Refused
from tunewheel_client.sync.resource import Paging, Resource


class Commands(Resource):
    """What became of commands."""

    def list(self, project: str, *, state: str | None = None, **paging: Unpack[Paging]) -> Page[Command]:
        """Return a page of commands, newest first; of those in ``state`` where one is named."""
        return self._read(Page[Command], project, "commands", state=state, **paging)

    def show(self, project: str, command_id: str) -> Command:
        """Return whether a command waits, was obeyed, or was refused and why."""
        return self._read(Command, project, "commands", command_id)

    def wait(
        self, project: str, command_id: str, *, timeout_seconds: float = 60.0, poll_seconds: float = 0.5
    ) -> Command:
        """Wait until a command was obeyed, and return it.

        Raises:
            Refused: a service refused the command; the message says why.
            Away: nobody has answered the command after ``timeout_seconds``.
        """
        ends = time.monotonic() + timeout_seconds
        command = self.show(project, command_id)
        while command.state == "waiting":
            if time.monotonic() + poll_seconds > ends:
                raise Away(f"command {command_id} of {project} was not answered in {timeout_seconds:g} s")
            time.sleep(poll_seconds)
            command = self.show(project, command_id)
        if command.state == "refused":
            raise Refused(command.reason, param=command.field, code="command_refused")
        return command


class ServicesOfWheel(Resource):
    """The services of the wheel."""

    def list(self) -> Services:
        """Return which services read the log, and how far they are behind."""
        return self._transport.read(Services, "services")


class DeadLetters(Resource):
    """The messages that services refused. The caller needs the role viewer in all projects."""

    def list(
        self, *, project: str | None = None, topic: str | None = None, **paging: Unpack[Paging]
    ) -> Page[DeadLetter]:
        """Return a page of messages, newest first; those of one project or topic where one is named."""
        return self._transport.read(Page[DeadLetter], "dead-letters", project=project, topic=topic, **paging)


class Keys(Resource):
    """The API keys of the wheel. The caller needs the role operator in all projects.

    Changes raise ``Conflict`` where the console may only read the file of keys.
    """

    def list(self) -> KeysOfWheel:
        """Return the names of all keys with what each may do."""
        return self._transport.read(KeysOfWheel, "keys")

    def add(
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
        return self._transport.request(NewKey, "POST", "keys", json=order, is_harmless=False)

    def rotate(self, name: str, *, keep_old: bool = False) -> NewKey:
        """Replace a key and return the new one. ``keep_old``: the old one stays valid until it is revoked."""
        return self._transport.request(
            NewKey, "POST", "keys", name, "rotate", json={"keep_old": keep_old}, is_harmless=False
        )

    def revoke(self, name: str, *, old_only: bool = False) -> None:
        """End a key for good. ``old_only``: only the one that a rotation kept."""
        self._transport.send("DELETE", "keys", name, query={"old_only": old_only or None})


class Audit(Resource):
    """Who ordered what. The caller needs the role operator in all projects."""

    def list(
        self, *, project: str | None = None, principal: str | None = None, **paging: Unpack[Paging]
    ) -> Page[AuditEntry]:
        """Return a page of commands with who gave each and what became of it, newest first."""
        return self._transport.read(Page[AuditEntry], "audit", project=project, principal=principal, **paging)

    def export(
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
        answer = self._transport.send("GET", "audit", query=query, headers={"Accept": kind})
        return answer.text

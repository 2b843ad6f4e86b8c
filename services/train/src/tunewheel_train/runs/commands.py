"""Decides which commands to runs are accepted: those whose sender was an operator when train first read them.

Every worker reads all commands from the beginning of the log at each start. The decision on a command is
stored once, so all workers agree. A role that a person gets or loses later does not change earlier decisions.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.training import TrainControl
from tunewheel_runtime.retry import Backoff, retry
from tunewheel_runtime.service import Position
from tunewheel_runtime.store import ObjectStore

FOLDER = "commands"
ACCEPTED = b"accepted"

Check = Callable[[TrainControl], Awaitable[None]]
"""Raises ``InvalidEvent`` unless the sender of a command may send it now."""
Handled = Callable[[], Awaitable[Mapping[int, int]]]
"""Returns, by partition of the commands, the offset up to which the service has handled them."""


class Commands:
    """Decides once on each command, and finds earlier decisions."""

    def __init__(self, store: ObjectStore, check: Check, handled: Handled, backoff: Backoff) -> None:
        self._store = store
        self._check = check
        self._handled = handled
        self._backoff = backoff
        self._of_before: dict[str, int] | None = None

    async def begin(self) -> None:
        """Store, at the first start only, which commands an older release had handled. It checked no roles,
        so these commands stay accepted. Await this before the service handles any command.

        Raises:
            TransientError: the store or the broker is away.
        """
        if self._of_before is None:
            handled = json.dumps({str(n): end for n, end in (await self._handled()).items()})
            self._of_before = json.loads(await self._store.first(f"{FOLDER}/asked-from", handled.encode()))

    async def is_accepted(self, event: Envelope[TrainControl], position: Position) -> bool:
        """Return whether a command on the log is accepted.

        Raises:
            TransientError: the store or the broker stays away.
        """

        async def ask() -> bool:
            await self.begin()
            return self._is_of_before(event.data, position) or await self._decided(event.data) == ACCEPTED

        return await retry(ask, self._backoff, what="deciding on a command")

    async def demand_accepted(self, event: Envelope[TrainControl]) -> None:
        """Raise an error for a command that is not accepted.

        Raises:
            InvalidEvent: with the field and the reason of the stored decision.
            TransientError: the store is away.
        """
        decided = await self._decided(event.data)
        if decided != ACCEPTED:
            raise InvalidEvent(**json.loads(decided))

    async def _decided(self, command: TrainControl) -> bytes:
        path = f"{FOLDER}/{command.project}/{command.event_id()}"
        return await self._store.read(path) or await self._store.first(path, await self._decide(command))

    async def _decide(self, command: TrainControl) -> bytes:
        try:
            await self._check(command)
        except InvalidEvent as error:
            return json.dumps({"field": error.field, "reason": error.reason}).encode()
        return ACCEPTED

    def _is_of_before(self, command: TrainControl, position: Position) -> bool:
        ends = self._of_before or {}
        return command.principal is None and position.offset < ends.get(str(position.partition), 0)

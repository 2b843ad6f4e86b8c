"""Evaluations one after the other. One that waits for its passages lets the others go first.

An endpoint for vectors, or the service that builds indexes, may be away for days, and only some projects need
them. Such an evaluation keeps its event: nothing is committed until its verdict is on the log, so whoever
takes over after a ``kill -9`` waits on. It ends without a verdict where what it waits for does not come back:
one without the passages that it rests on would tell of the outage, not of the model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tunewheel_contracts.errors import InvalidEvent, TransientError, TunewheelError
from tunewheel_runtime.deadletter import Warn
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.retry import Backoff

from tunewheel_eval.errors import PassagesAway

T = TypeVar("T")
BETWEEN_TRIES = Backoff(attempts=1, first=1.0, longest=60.0)
"""What ends the attempts is time, not their number."""


class Turns:
    """The evaluations of one topic. ``warn`` tells at ``/health/ready`` which evaluation waits for what. An
    evaluation that waited for ``longest_seconds`` in this process waits no longer."""

    def __init__(self, warn: Warn, longest_seconds: float, *, between_tries: Backoff = BETWEEN_TRIES) -> None:
        self._warn, self._longest_seconds = warn, longest_seconds
        self._between_tries = between_tries
        self._turn = asyncio.Lock()

    async def take(self, run_id: str, lease: Lease, judge: Callable[[], Awaitable[T]]) -> T:
        """Return what ``judge`` returns, called again after each of its ``PassagesAway``.

        Raises:
            InvalidEvent: it waited for too long.
            LeaseLost: the partition moved, or the service stops.
        """
        name, waits = f"evaluation of {lease.partition} {lease.offset}", 0
        gives_up = None
        try:
            while True:
                async with self._turn:
                    lease.check()
                    try:
                        return await judge()
                    except PassagesAway as error:
                        away = error
                is_back = False
                while not is_back:
                    gives_up = gives_up or time.monotonic() + self._longest_seconds
                    if time.monotonic() >= gives_up:
                        raise InvalidEvent(field=away.field, reason=_given_up(away)) from away
                    self._warn(name, f"the evaluation of {run_id} waits, others go on: {away}")
                    await lease.pause(self._between_tries.delay(waits))
                    waits += 1
                    is_back = await _may_be_back(away)
        finally:
            self._warn(name, None)


def _given_up(away: PassagesAway) -> str:
    return f"was waited for too long ({away}); mend that, and have the run judged again: tunewheel eval RUN"


async def _may_be_back(away: PassagesAway) -> bool:
    """Ask outside of the turn: an endpoint may take a minute to give no answer."""
    try:
        await away.ask_again()
    except TransientError:
        return False
    except TunewheelError:
        return True  # an answer of another kind, which the evaluation tells of
    return True

"""Runs evaluations when they have a slot. An evaluation that waits for its passages waits without one.

An endpoint for embeddings, or the index service, may be away for days, and only some projects need them. A
waiting evaluation keeps its event: the offset is committed only when its verdict is on the log. So after a
``kill -9`` the next owner goes on waiting. If the passages never come back, the evaluation ends without a
verdict: a verdict without them would be about the outage, not about the model.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tunewheel_contracts.errors import InvalidEvent, TransientError, TunewheelError
from tunewheel_runtime.deadletter import Warn
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.slots import Slots

from tunewheel_eval.errors import PassagesAway

T = TypeVar("T")
BETWEEN_TRIES = Backoff(attempts=1, first=1.0, longest=60.0)
"""The waits between tries. Only time limits the tries, not their number."""


class Turns:
    """The evaluations of a process. ``warn`` shows at ``/health/ready`` which evaluation waits for what. An
    evaluation waits at most ``longest_seconds`` for its passages in this process."""

    def __init__(
        self, warn: Warn, longest_seconds: float, slots: Slots, *, between_tries: Backoff = BETWEEN_TRIES
    ) -> None:
        self._warn, self._longest_seconds, self._slots = warn, longest_seconds, slots
        self._between_tries = between_tries

    async def take(self, project: str, run_id: str, lease: Lease, judge: Callable[[], Awaitable[T]]) -> T:
        """Return the result of ``judge``. It is called again after each ``PassagesAway``.

        Raises:
            InvalidEvent: it waited for too long.
            LeaseLost: the partition moved, or the service stops.
        """
        name, waits = f"evaluation of {lease.partition} {lease.offset}", 0
        gives_up = None
        try:
            while True:
                async with self._slots.hold(project, lease.lost, job=run_id):
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
    advice = "mend that, and have the run judged again: tunewheel run evaluate RUN"
    return f"was waited for too long ({away}); {advice}"


async def _may_be_back(away: PassagesAway) -> bool:
    """Return whether the passages may be back. This runs outside the turn: a time-out may take a minute."""
    try:
        await away.ask_again()
    except TransientError:
        return False
    except TunewheelError:
        return True  # another error: the evaluation will report it
    return True

"""What can stop an evaluation without the service being at fault.

UnfitCandidate      the candidate cannot be measured: it fails, with the field to mend
PassagesAway        the passages or the judge that the verdict needs are away: this evaluation waits
UnusableContestant  base or champion cannot be measured: the measuring process ends with this reason
NoNumber            a likelihood is NaN: UnfitCandidate for the candidate's, else UnusableContestant
WorkerFailed        the measuring process broke: another attempt; after the last one the run fails
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tunewheel_contracts.errors import FieldError, TunewheelError


class UnfitCandidate(FieldError):
    """The candidate cannot be measured, because of its files or of its dataset."""


async def _nobody() -> None: ...


class PassagesAway(TunewheelError):
    """The endpoint for vectors or the judge does not answer, or the index is being rebuilt. ``field`` names
    what to mend if this lasts. ``ask_again`` raises TransientError while it is known to last."""

    def __init__(
        self, reason: str, *, field: str, ask_again: Callable[[], Awaitable[object]] = _nobody
    ) -> None:
        super().__init__(reason)
        self.field, self.ask_again = field, ask_again


class UnusableContestant(TunewheelError):
    """The files of the base or of the champion do not load."""


class NoNumber(TunewheelError):
    """A likelihood came out as NaN or infinite. ``UnfitCandidate`` where it is the candidate's."""


class WorkerFailed(TunewheelError):
    """The measuring process ended without finishing and without naming a fault of the candidate."""

"""Rate limits and budgets of a caller."""

from __future__ import annotations

from tunewheel_contracts.fields import PositiveInt, Strict


class Limits(Strict):
    """The limits of one caller. None: as in the service's settings.

    Tokens of the prompt and of the answer both count.
    """

    requests_per_minute: PositiveInt | None = None
    tokens_per_minute: PositiveInt | None = None
    tokens_per_day: PositiveInt | None = None
    """A budget from midnight to midnight, UTC."""
    tokens_per_month: PositiveInt | None = None
    """A budget of a calendar month, UTC."""

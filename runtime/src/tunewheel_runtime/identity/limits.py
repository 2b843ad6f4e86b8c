"""How much a caller may use."""

from __future__ import annotations

from tunewheel_contracts.fields import PositiveInt, Strict


class Limits(Strict):
    """What one caller may use. A limit that is None is as the service's settings say.

    Tokens are those of the prompt and of the answer together.
    """

    requests_per_minute: PositiveInt | None = None
    tokens_per_minute: PositiveInt | None = None
    tokens_per_day: PositiveInt | None = None
    """A budget: from midnight to midnight, UTC."""
    tokens_per_month: PositiveInt | None = None
    """A budget: of a calendar month, UTC."""

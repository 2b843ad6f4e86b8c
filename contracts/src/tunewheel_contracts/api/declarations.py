"""What the console says of a spec that it checks or puts in force."""

from __future__ import annotations

from tunewheel_contracts.api.commands import Accepted
from tunewheel_contracts.api.datasets import Power
from tunewheel_contracts.changes import Change
from tunewheel_contracts.fields import Sha256


class Declaration(Accepted):
    """A spec without a fault. ``command_id`` is empty where the request only checks."""

    spec_sha256: Sha256
    criteria_sha256: Sha256
    base_model: str
    criteria: int
    """How many criteria the spec has."""
    cautions: tuple[str, ...] = ()
    """Warnings about settings that are allowed but seldom intended."""
    notes: tuple[str, ...] = ()
    """Changes that do not take effect at once."""
    replaces: str = ""
    """The SHA-256 of the spec that was in force before; ``none``: there was none."""
    changes: dict[str, Change] = {}
    """What the spec changes: by dotted path the value that was in force, and the new one; null: there is
    none."""
    power: Power | None = None
    """How probable a verdict is on the held-out rows of the smallest version that the spec allows."""
    power_left_out: str | None = None
    """Why ``power`` was not computed."""

"""Turns of the wheel: from the request for a dataset version to the effect of its model."""

from __future__ import annotations

from tunewheel_contracts.events.turns import TurnCompleted
from tunewheel_contracts.fields import Frozen, Timestamp


class TurnSummary(Frozen):
    turn_id: str
    project: str
    reason: str
    """Why the turn began: ``count``, ``quiet``, ``command`` or ``drift``."""
    stage: str
    """How far the turn came: ``building``, ``waiting``, ``training``, ``evaluating``, ``review``,
    ``undecided``, ``passed``, ``shadow``, ``canary`` or ``production``."""
    state: str
    """``in flight`` or ``ended``."""
    stage_in_words: str = ""
    """The stage with the latest step of the training."""
    end: str | None = None
    """How the turn ended; None: it goes on, or its effect is not measured yet."""
    outcome: str | None = None
    """``outcome`` of ``turn.completed``."""
    alarm_ids: tuple[str, ...] = ()
    dataset_id: str | None = None
    run_id: str | None = None
    model_id: str | None = None
    began_at: Timestamp
    since: Timestamp
    """Since when the turn is in its stage, or over."""
    news_at: Timestamp
    """The time of the last event about the turn."""


class TurnDetail(TurnSummary):
    served_at: Timestamp | None = None
    """When the turn's model first came to production."""
    request: str = ""
    """The text that names the request."""
    asked_by: str | None = None
    """The person who asked; None: a policy did, or nobody was named."""
    completed: TurnCompleted | None = None
    """The monitor's report of the turn's end."""
    revisions: int = 0
    """How many ends the monitor reported of this turn, after each of which but the last it went on."""

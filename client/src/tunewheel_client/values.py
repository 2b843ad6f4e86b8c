"""Values that the client returns besides the control API's own models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunewheel_contracts.fields import Frozen


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer. ``str()`` of it is its text."""

    text: str
    model: str
    """The model that answered."""
    completion_id: str
    """Names the answer in feedback."""
    sources: tuple[Mapping[str, str], ...] = ()
    """``document``, ``heading`` and ``version`` of each passage in the prompt, the best first."""
    usage: Mapping[str, Any] | None = None
    """Tokens of the prompt and of the answer."""
    refusal: str | None = None
    """Why there is no text: the model was not sure enough of its answer."""
    confidence: float | None = None
    """How often answers of this confidence are right, 0 to 1; None: it was not measured."""

    def __str__(self) -> str:
        return self.text


class FeedbackReceipt(Frozen):
    """Feedback that is on the log."""

    feedback_id: str
    completion_id: str
    project: str


@dataclass(frozen=True, slots=True)
class RefusedItem:
    """An item that was not published, and how to correct it. ``index`` counts from 0."""

    index: int
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Lowered:
    """Validated answers that were published, but are trusted less than they state."""

    count: int
    trust: str
    """The trust that they have."""
    reason: str


@dataclass(slots=True)
class Receipt:
    """What became of published items. Accepted ones are on the log."""

    accepted: int = 0
    event_ids: list[str] = field(default_factory=list[str])
    refused: list[RefusedItem] = field(default_factory=list[RefusedItem])
    lowered: Lowered | None = None
    """None: all answers are trusted as they state."""


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """What a person does to log in: open ``url`` in any browser and enter ``code``."""

    url: str
    code: str
    complete_url: str | None
    """The URL that holds the code already; None: the issuer makes none."""
    expires_in_seconds: float


@dataclass(frozen=True, slots=True)
class Gap:
    """Events are missing here: the console did not hold them any more. ``after``: the last event before."""

    after: str | None

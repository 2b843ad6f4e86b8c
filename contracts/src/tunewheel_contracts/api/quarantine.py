"""Records that wait for a person before they train."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.api.commands import Accepted, Order
from tunewheel_contracts.fields import Slug, Text
from tunewheel_contracts.formats.quarantine import QuarantinedRecord


class QuarantineItem(QuarantinedRecord):
    state: Literal["waiting", "released", "refused"] = "waiting"
    """The latest decision about the record, which the next build applies."""


class QuarantineOrder(Order):
    """The body of a decision about records in quarantine: about the named ``records``, or else about all that
    wait, or all that wait for ``reason``."""

    verdict: Literal["release", "refuse"]
    records: Annotated[tuple[Slug, ...], Field(max_length=1_000)] = ()
    reason: str | None = None
    """Such as ``flood``; see the list."""
    comment: Text = ""


class RecordsJudged(Accepted):
    """``command_id`` is the first of ``command_ids``."""

    command_ids: tuple[str, ...]
    """By record, in the order of ``records``."""
    records: tuple[str, ...]

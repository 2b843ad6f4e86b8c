"""Requests for labels: questions that people answer."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.fields import Frozen, Timestamp
from tunewheel_contracts.formats.dataset import ChatMessage


class LabelRequest(Frozen):
    request_id: str
    alarm_id: str
    dataset_id: str
    state: str
    """``waiting`` or ``ended``."""
    outcome: str | None = None
    requested_at: Timestamp
    keywords: tuple[str, ...] = ()
    wanted: int
    prompts: int
    answered: int = 0
    out_of_scope: int = 0


class LabelRequests(Frozen):
    project: str
    requests: tuple[LabelRequest, ...]


class LabelItemState(Frozen):
    number: int
    state: str


class LabelField(Frozen, extra="allow"):
    """A field of the task's answers, as the page's form has it."""

    name: str


class LabelRequestDetail(LabelRequest):
    next: int | None = None
    """The number of the next item to answer; None: there is none."""
    items: tuple[LabelItemState, ...] = ()
    fields: tuple[LabelField, ...] = ()


class LabelItem(Frozen):
    number: int
    of: int
    state: str
    completion_id: str
    messages: tuple[ChatMessage, ...] = ()
    model_output: str | None = None


class LabelProgress(LabelRequest):
    number: int
    """The item that was answered."""
    next: int | None = None


LabelOutput = dict[str, Any] | str

"""Completions: the latest answers of production, with their questions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewheel_contracts.api.commands import Accepted, Order
from tunewheel_contracts.fields import Frozen, SourceId, Timestamp
from tunewheel_contracts.formats.confidence import Confidence
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.index import RetrievalUse
from tunewheel_contracts.formats.serving import Fault, LogPolicy, RouteRole


class CompletionSummary(Frozen):
    """While people compare answers of the project, ``role``, ``model_id`` and ``shadow_of`` are None, because
    they say whose answer it is."""

    completion_id: str
    project: str
    completed_at: Timestamp
    role: RouteRole | None = None
    model_id: str | None = None
    shadow_of: str | None = None
    """For an answer of a model in shadow: the completion that the client got."""
    client: str | None = None
    """The name of the API key."""
    latency_seconds: float
    format_valid: bool | None = None
    """Whether the answer fits the task's form. None: it is incomplete, or the task was not known."""
    violations: tuple[str, ...] = ()
    """The broken requirements."""
    error: str | None = None
    label: str | None = None
    """The label in the answer."""
    question: str
    """The beginning of the last question."""
    answer: str
    """The beginning of the answer."""


class CompletionDetail(CompletionSummary):
    messages: tuple[ChatMessage, ...]
    output: str
    texts: LogPolicy
    """Which texts the project logs: ``full``, ``redacted``, ``hashed`` or ``off``."""
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    first_token_seconds: float | None = None
    queue_seconds: float | None = None
    streamed: bool = False
    cancelled: bool = False
    fault: Fault | None = None
    overrides: tuple[str, ...] = ()
    """What the client replaced of the project's settings."""
    customer: str | None = None
    """The user who asked."""
    retrieval: RetrievalUse | None = None
    """The passages in the prompt."""
    confidence: Confidence | None = None
    shadows: tuple[str, ...] = ()
    """The answers of models in shadow to the same question."""
    alarms: tuple[str, ...] = ()
    """The alarms whose cluster it is in."""
    labels: tuple[str, ...] = ()
    """The requests for labels that have it as a prompt."""


class LabelOrder(Order):
    """The body of a request for labels: the completions whose questions need a trusted answer."""

    completions: Annotated[tuple[SourceId, ...], Field(min_length=1, max_length=200)]


class LabelsOrdered(Accepted):
    request_id: str
    """Of the request, which can be answered once its command is done. The same completions have the same
    request."""

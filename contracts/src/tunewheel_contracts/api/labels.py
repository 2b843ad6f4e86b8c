"""Requests for labels: questions that people answer."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tunewheel_contracts.fields import Frozen, Timestamp
from tunewheel_contracts.formats.dataset import ChatMessage


class LabelTopic(Frozen):
    """Prompts about the same thing."""

    cluster_id: str
    prompts: int
    size: int
    """How many production questions were about it."""
    lacking: int | None = None
    """How many answers it needs yet; 0: it is settled, and its other prompts need no answer. None: it is too
    small to need its own, or nothing was decided yet."""


class LabelRequest(Frozen):
    request_id: str
    alarm_id: str
    asked_by: str | None = None
    """The person who chose the prompts; ``alarm_id`` is then the name of no alarm. None: an alarm asks."""
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
    minutes: float = 0.0
    """How long people take for the answers that are still wanted, by ``drift.labels.seconds``."""
    dollars: float = 0.0
    """What these answers cost, by ``drift.labels.dollars``."""
    share: float | None = None
    """The share of production's questions that the prompts are about: answers can improve no more than these.
    None: it was not counted."""
    clusters: tuple[LabelTopic, ...] = ()


class LabelRequests(Frozen):
    project: str
    requests: tuple[LabelRequest, ...]


class LabelItemState(Frozen):
    number: int
    state: str
    """``open``, ``answered``, ``out_of_scope``, ``settled``: its topic has enough answers; or ``erased``."""
    people: tuple[str, ...] = ()
    """Who is to answer it, by ``drift.labels.assignees``."""
    opinions: int = 0
    """How many people have said their opinion, where ``drift.labels.second_opinion`` asks for two."""


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
    model_complaint: str | None = None
    """Which requirement of the task the model's answer breaks."""
    is_compared: bool = False
    """Whether people compare answers to the question blind, so that ``model_output`` is left empty."""
    version: str = "none"
    """Changes whenever somebody answers the item; an answer that repeats it (``seen``) replaces no other."""
    answered_by: str | None = None
    answered_at: Timestamp | None = None


class SimilarAnswer(Frozen):
    """A question like the item's, with the answer that an expert gave to it."""

    question: str
    answer: str
    origin: Annotated[str, Field(alias="from")]
    """``this queue`` or ``the dataset``."""
    similarity: float
    """The cosine of the two questions' words, from 0 to 1: equal."""


class LabelContext(Frozen):
    """What helps to answer an item."""

    similar: tuple[SimilarAnswer, ...] = ()
    """The most similar first."""
    search: str | None = None
    """The question to search the project's documents for; None: it has no index of documents."""


class LabelProgress(LabelRequest):
    number: int
    """The item that was answered."""
    next: int | None = None
    passed_over: tuple[int, ...] = ()
    """Items of ``also`` that did not get the answer: they are not open, or of another topic."""


LabelOutput = dict[str, Any] | str

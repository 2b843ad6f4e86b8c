"""Prompts of production that need a trusted answer or a comparison of two answers, and the attributes by
which examples refer to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import Frozen, Slug, SourceId, Text
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.identity import content_sha256

LABEL_REQUEST = "label_request"
"""Attribute of an example that answers a ``labels.requested``. Its value is the ``request_id``."""
OUT_OF_SCOPE = "out_of_scope"
"""Attribute of an example whose question has no right answer in the task. Its value is ``true``, its
``output`` is empty, and nothing is trained on it."""
TAUGHT_BY = "taught_by"
"""Attribute of an example that a teacher answered. Its value is the teacher's model. Nobody validated the
answer."""


def request_of(alarm_id: str) -> str:
    """Return the ``request_id`` of the labels that an alarm may request."""
    return f"labels-{alarm_id.removeprefix('alarm-')}"


def request_for(completion_ids: Iterable[str]) -> str:
    """Return the ``request_id`` of the labels that a person requests for these completions."""
    return request_of(f"chosen-{content_sha256(sorted(set(completion_ids)))[:16]}")


class LabelPrompt(Frozen):
    """One question from production. The id of the example that answers it is the ``completion_id``. So an
    erasure of the completion also covers the example, and a second answer replaces the first."""

    completion_id: SourceId
    customer: SourceId | None = None
    """The user who asked. It becomes the ``group`` of the example, by which an erasure finds it."""
    messages: tuple[ChatMessage, ...] = ()
    """The redacted conversation up to the question. Empty: it was erased."""
    output: Text = ""
    """The model's redacted answer. It is shown to people and never used for training."""
    candidate: Annotated[Text | None, Field(exclude_if=lambda text: text is None)] = None
    """In a file of pairs (``comparisons.requested``): the candidate's redacted answer to the question.
    ``output`` is then the champion's."""

    @property
    def is_erased(self) -> bool:
        return not self.messages

    @property
    def turns(self) -> tuple[ChatMessage, ...]:
        """The conversation without system messages."""
        return tuple(message for message in self.messages if message.role != "system")

    def emptied(self) -> LabelPrompt:
        """Return the item without content, as an erasure leaves it in the list."""
        return LabelPrompt(completion_id=self.completion_id)


class LabelPrompts(Frozen):
    """A file of prompts; ``labels.requested`` (``prompts``) or ``comparisons.requested`` (``pairs``) names
    its path. An erasure empties items and
    leaves them in the list, so that item numbers stay valid."""

    project: Slug
    request_id: Slug
    items: tuple[LabelPrompt, ...] = ()
    """The prompts, most typical first."""
